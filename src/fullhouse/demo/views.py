"""The pages."""

from itertools import groupby
from operator import attrgetter

from django.conf import settings
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from fullhouse.demo.forms import BuyerForm
from fullhouse.demo.models import Event, Order, Seat, row_label
from fullhouse.demo.selling import SeatTaken, sell

ORDERS_PER_PAGE = 25
SEATS_OFFERED = 6


@require_safe
def events(request: HttpRequest) -> HttpResponse:
    return render(request, "boxoffice/events.html", {"events": Event.objects.with_free()})


@require_safe
def event(request: HttpRequest, event_id: int) -> HttpResponse:
    return _event_page(request, get_object_or_404(Event, pk=event_id))


def _event_page(request: HttpRequest, event: Event, problem: str = "", status: int = 200) -> HttpResponse:
    """The seat map: one query for the event, one for its seats, however many there are."""
    seats = list(event.seats.all())
    rows = [(row_label(row), list(group)) for row, group in groupby(seats, key=attrgetter("row"))]
    context = {
        "event": event,
        "rows": rows,
        "free": sum(not seat.sold for seat in seats),
        "aisle": event.seats_per_row // 2,
        "buyer": request.POST.get("buyer", ""),
        "problem": problem,
    }
    return render(request, "boxoffice/event.html", context, status=status)


@require_POST
def buy(request: HttpRequest, event_id: int) -> HttpResponse:
    """Sell the chosen seat: 302 to the ticket, 409 when it is taken, 400 when the form is not filled in."""
    chosen = request.POST.get("seat", "")
    if not chosen.isdecimal():
        event = get_object_or_404(Event, pk=event_id)
        return _event_page(request, event, "Please choose a seat on the map.", status=400)
    seat = get_object_or_404(Seat.objects.select_related("event"), event_id=event_id, pk=chosen)
    form = BuyerForm(request.POST)
    if not form.is_valid():
        return _event_page(request, seat.event, form.problem(), status=400)
    buyer = form.cleaned_data["buyer"]
    try:
        return redirect(sell(seat, buyer))
    except SeatTaken:
        offers = Seat.objects.free().nearest_to(seat)[:SEATS_OFFERED]
        context = {"event": seat.event, "seat": seat, "buyer": buyer, "offers": offers}
        return render(request, "boxoffice/taken.html", context, status=409)


@require_safe
def orders(request: HttpRequest) -> HttpResponse:
    everything = Order.objects.select_related("seat__event")
    page = Paginator(everything, ORDERS_PER_PAGE).get_page(request.GET.get("page"))
    return render(request, "boxoffice/orders.html", {"page": page})


@require_safe
def order(request: HttpRequest, order_id: int) -> HttpResponse:
    order = get_object_or_404(Order.objects.select_related("seat__event"), pk=order_id)
    context = {"order": order, "expects_confirmation": settings.CONFIRMS_ORDERS}
    return render(request, "boxoffice/order.html", context)
