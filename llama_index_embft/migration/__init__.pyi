from .files import Migration as Migration
from .files import migrate_file as migrate_file
from .notes import Note as Note
