from .code import Note as Note
from .files import Migration as Migration, migrate_file as migrate_file
