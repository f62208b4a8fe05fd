"""The box office behind the counter, at /admin/."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from fullhouse.demo.models import Event, Order


@admin.register(Event)
class EventAdmin(admin.ModelAdmin[Event]):
    list_display = ("name", "venue", "when", "price", "free")
    search_fields = ("name", "venue")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        return Event.objects.with_free()

    @admin.display
    def free(self, event: Event) -> int:
        return event.free  # type: ignore[attr-defined,no-any-return]  # counted by the query


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin[Order]):
    list_display = ("id", "buyer", "seat", "created", "confirmed")
    list_select_related = ("seat",)
    raw_id_fields = ("seat",)
    search_fields = ("buyer",)
