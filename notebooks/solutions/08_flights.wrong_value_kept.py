"""The entry goes only when the load has failed: a value is kept for ever.

Refused: not yet when a flight has landed, the next read loads anew
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
            except BaseException as error:
                del self.flights[id]
                flight.set_exception(error)
        return flight.result()
