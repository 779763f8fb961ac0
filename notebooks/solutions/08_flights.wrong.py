"""The followers of a failed load wait for ever: nobody puts the error into the box.

Refused: all who wait for a failing load get its error (they got: LookupError, no answer)
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
        if leads:
            try:
                flight.set_result(self.load(id))
            finally:
                del self.flights[id]
        return flight.result()
