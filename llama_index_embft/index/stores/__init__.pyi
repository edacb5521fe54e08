from .base import VectorTable as VectorTable
from .opening import TABLES as TABLES
from .opening import OpenedIndex as OpenedIndex
from .opening import open_index as open_index
from .opening import open_table as open_table
