from django.contrib import admin
from django.urls import path

from fullhouse.demo import api, views

urlpatterns = [
    path("", views.events, name="events"),
    path("events/<int:event_id>/", views.event, name="event"),
    path("events/<int:event_id>/buy", views.buy, name="buy"),
    path("admin/", admin.site.urls),
    path("orders/", views.orders, name="orders"),
    path("orders/<int:order_id>/", views.order, name="order"),
    path("api/events/<int:event_id>/", api.event, name="api-event"),
    path("api/events/<int:event_id>/seats/<int:seat_id>/buy", api.buy, name="api-buy"),
]
