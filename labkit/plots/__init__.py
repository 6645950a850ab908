"""Pictures of results, by matplotlib."""

from labkit.system.fonts import check_backend

check_backend()  # before any module here imports matplotlib, whose own message does not name the variable
