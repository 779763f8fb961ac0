"""Every error reaches all who wait, and is kept: the entry goes only after a success.

Refused: not yet a load that raises reaches its readers and is not cached
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
                del self.flights[id]
            except BaseException as error:
                flight.set_exception(error)
        return flight.result()
