"""Each who waited for a load that failed makes it again: a database in trouble is asked by all.

Refused: all who wait for a failing load get its error (the failing load was made 10 times)
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
                flight.set_exception(error)
            finally:
                del self.flights[id]
            return flight.result()
        try:
            return flight.result()
        except BaseException:
            return self.load(id)
