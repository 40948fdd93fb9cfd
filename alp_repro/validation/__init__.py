"""Values from outside: arguments of library calls, numbers of settings, JSON of files and flags."""
