from django.apps import AppConfig


class BoxOfficeConfig(AppConfig):
    name = "fullhouse.demo"
    label = "boxoffice"
    verbose_name = "Box office"
    default_auto_field = "django.db.models.BigAutoField"
