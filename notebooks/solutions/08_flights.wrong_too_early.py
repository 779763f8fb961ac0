"""The entry goes before the load has ended: who comes meanwhile loads, too.

Refused: not yet readers of a cold key load once
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
            del self.flights[id]
            try:
                flight.set_result(self.load(id))
            except BaseException as error:
                flight.set_exception(error)
        return flight.result()
