"""The same box office for programs, in JSON."""

import json

from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST, require_safe

from fullhouse.demo.forms import BuyerForm
from fullhouse.demo.models import Event, Seat, row_label
from fullhouse.demo.selling import SeatTaken, sell


@require_safe
def event(request: HttpRequest, event_id: int) -> JsonResponse:
    """The event, the number of its free seats, and each seat's state."""
    event = get_object_or_404(Event, pk=event_id)
    seats = list(event.seats.all())
    return JsonResponse(
        {
            "id": event.pk,
            "name": event.name,
            "venue": event.venue,
            "when": event.when,
            "price": event.price,
            "free": sum(not seat.sold for seat in seats),
            "seats": [
                {"id": seat.pk, "row": row_label(seat.row), "number": seat.number, "sold": seat.sold} for seat in seats
            ],
        }
    )


@csrf_exempt  # programs have no cookie that another site could abuse
@require_POST
def buy(request: HttpRequest, event_id: int, seat_id: int) -> JsonResponse:
    """Sell a seat to {"buyer": name}: 201 with the order, 409 when it is taken, 400 when unreadable."""
    try:
        order = json.loads(request.body)
    except ValueError:  # also bytes that are not UTF-8
        order = None
    if not isinstance(order, dict):
        return JsonResponse({"error": 'Send a JSON object, such as {"buyer": "Ada"}.'}, status=400)
    seat = get_object_or_404(Seat.objects.select_related("event"), event_id=event_id, pk=seat_id)
    form = BuyerForm(order)
    if not form.is_valid():
        return JsonResponse({"error": form.problem()}, status=400)
    try:
        sold = sell(seat, form.cleaned_data["buyer"])
    except SeatTaken as taken:
        return JsonResponse({"error": str(taken)}, status=409)
    return JsonResponse({"order": sold.pk, "seat": str(seat), "buyer": sold.buyer}, status=201)
