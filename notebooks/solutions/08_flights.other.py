"""Without a Future: an event wakes the followers, and a dict of the flight has what came of it."""

from threading import Event


class Flights:
    def __init__(self, url, load, ttl, missing_ttl):
        self.load = load
        self.flights = {}

    def get(self, id):
        mine = {"landed": Event()}
        flight = self.flights.setdefault(id, mine)
        if flight is mine:
            self.lead(id, flight)
        flight["landed"].wait()
        if "error" in flight:
            raise flight["error"]
        return flight["value"]

    def lead(self, id, flight):
        try:
            flight["value"] = self.load(id)
        except BaseException as error:
            flight["error"] = error
        self.flights.pop(id)
        flight["landed"].set()
