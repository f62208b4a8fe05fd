"""The Django project: found, set up, its databases asked, and its plan made."""
