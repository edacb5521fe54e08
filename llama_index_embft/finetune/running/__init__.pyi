from .settings import (
    HardwareSettings as HardwareSettings,
    LoraSettings as LoraSettings,
    TextSettings as TextSettings,
)
