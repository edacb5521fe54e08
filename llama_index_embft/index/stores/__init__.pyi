from .base import VectorTable as VectorTable
from .opening import TABLES as TABLES, OpenedIndex as OpenedIndex, open_index as open_index, open_table as open_table
