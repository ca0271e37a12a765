from .index import Index as Index
from .page import Written as Written
from .page import write_page as write_page
from .server import application as application
from .server import serve as serve
