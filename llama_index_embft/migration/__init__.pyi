from .files import Migration as Migration, migrate_file as migrate_file
from .notes import Note as Note
