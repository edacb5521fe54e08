from .address import OpenedIndex as OpenedIndex
from .address import open_index as open_index
from .opening import VectorTable as VectorTable
from .opening import open_table as open_table
