"""Of what `except Exception` lets pass only sys.exit() is caught: a time limit is not.

Refused: so they do when a framework's time limit ends it (they got: TimeLimit, no answer)
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
            except (Exception, SystemExit) as error:
                flight.set_exception(error)
            finally:
                del self.flights[id]
        return flight.result()
