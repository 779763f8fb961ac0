"""The entry goes whatever happens, and every error goes into the box, for all who wait."""


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
                flight.set_exception(error)
            finally:
                del self.flights[id]
        return flight.result()
