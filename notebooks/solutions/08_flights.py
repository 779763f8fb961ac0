"""The entry goes whatever happens, so that the next reader starts a flight of its own."""


class Flights:
    def __init__(self, url, load, ttl, missing_ttl):
        self.load, self.flights, self.lock = load, {}, Lock()

    def get(self, id):
        with self.lock:
            leads, flight = id not in self.flights, self.flights.setdefault(id, Future())
        if leads:
            try:
                flight.set_result(self.load(id))
            except Exception as error:
                flight.set_exception(error)
            finally:
                del self.flights[id]
        return flight.result()
