"""Everybody removes the entry: a follower who leaves late removes that of the next flight.

Refused: not yet  a follower of an old flight leaves the next one alone
"""


class Flights:
    def __init__(self, url, load, ttl, missing_ttl):
        self.load = load
        self.flights = {}
        self.lock = Lock()

    def get(self, id):
        with self.lock:
            leads = id not in self.flights
            flight = self.flights.setdefault(id, Future())
        try:
            if leads:
                try:
                    flight.set_result(self.load(id))
                except BaseException as error:
                    flight.set_exception(error)
            return flight.result()
        finally:
            self.flights.pop(id, None)
