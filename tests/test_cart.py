"""Carts and stock: no addition is lost or made twice, no item is sold twice, wherever a step ends.

The common recipe reads a cart as JSON, adds in Python and writes the whole.
"""

import contextlib
import json
import subprocess
import sys
import threading

import pytest
import redis

import cachelab as cl
from cachelab.apps.cart import AsyncCart, Cart, Order
from cachelab.apps.stock import AsyncStock, Stock


@pytest.fixture
def patient(server, client):
    """The client of a busy machine: no call of a crowd runs out of time."""
    return cl.connect(server.url, timeout=30)


@pytest.fixture
def cart(patient):
    return Cart(patient, ttl=60)


@pytest.fixture
def stock(patient):
    return Stock(patient)


class Recipe:
    """As tutorials have it: a cart is one JSON text that is read, changed and written."""

    def __init__(self, client, meanwhile=lambda: None):
        self.client = client
        self.meanwhile = meanwhile

    def add(self, user, item, quantity=1):
        text = self.client.get(f"cart:{user}")
        lines = json.loads(text) if text else {}
        self.meanwhile()
        lines[item] = lines.get(item, 0) + quantity
        self.client.set(f"cart:{user}", json.dumps(lines), ex=86400)

    def items(self, user):
        return json.loads(self.client.get(f"cart:{user}"))


ADDS = """
import sys, threading
import cachelab as cl
from cachelab.apps.cart import Cart

client = cl.connect(sys.argv[1], timeout=30)
client.incr("ready")
while client.get("ready") != "2":
    pass
cart = Cart(client)
work = lambda: [cart.add("ada", "p-1") for _ in range(100)]
threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def test_processes_and_threads_that_add_to_one_cart_lose_nothing(server, cart):
    workers = [subprocess.Popen([sys.executable, "-c", ADDS, server.url]) for _ in range(2)]
    try:
        assert [worker.wait(120) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert cart.items("ada") == {"p-1": 800}


def test_the_recipe_keeps_what_one_of_those_adds_who_read_the_same(client, together):
    all_have_read = threading.Barrier(8)
    recipe = Recipe(client, all_have_read.wait)
    together(8, lambda: [recipe.add("ada", "p-1") for _ in range(10)])
    assert recipe.items("ada") == {"p-1": 10}  # of 80


def test_the_recipe_takes_a_number_and_its_text_for_two_items(cart, client):
    recipe = Recipe(client)
    recipe.add("ada", 5), recipe.add("ada", 5)
    assert client.get("cart:ada") == '{"5": 1, "5": 1}' and recipe.items("ada") == {"5": 1}
    with pytest.raises(TypeError, match=r"item must be a str, not 5 \(int\)"):
        cart.add("ada", 5)


def test_lines_are_added_set_and_taken_out(cart):
    assert cart.add("ada", "p-1", 3) == 3 and cart.add("ada", "p-1") == 4
    assert cart.remove("ada", "p-1", 1) == 3
    cart.put("ada", "p-2", 7)
    assert cart.items("ada") == {"p-1": 3, "p-2": 7} and cart.items("bob") == {}
    assert cart.remove("ada", "p-1", 9) == 0 and cart.remove("ada", "p-2") == 0
    assert cart.items("ada") == {}
    cart.add("ada", "p-1")
    cart.clear("ada")
    assert cart.items("ada") == {}


def test_a_change_prolongs_a_cart_and_a_look_does_not(cart, client):
    cart.add("ada", "p-1")
    (key,) = client.scan_iter("cart:lines:*")
    for change in (
        lambda: cart.add("ada", "p-1"),
        lambda: cart.put("ada", "p-2", 1),
        lambda: cart.remove("ada", "p-1", 1),
    ):
        client.pexpire(key, 5000)
        cart.items("ada")
        assert client.pttl(key) <= 5000
        change()
        assert 30_000 < client.pttl(key) <= 60_000
    assert all(client.pttl(key) > 0 for key in client.keys())


def test_a_request_that_is_sent_again_adds_once(cart, client, together):
    seen = together(20, cart.add, "ada", "p-1", 2, "order form 7")
    assert seen == [2] * 20
    assert cart.add("ada", "p-1", 2, "order form 8") == 4
    assert cart.remove("ada", "p-1", 1, "x") == cart.remove("ada", "p-1", 1, "x") == 3
    together(20, client.hincrby, "naive", "p-1", 2)
    assert client.hget("naive", "p-1") == "40"


@contextlib.contextmanager
def one_reply_lost(client, monkeypatch):
    """Lose the reply to the next command, as when the network breaks: the client sends it again."""
    connection = client.connection_pool.get_connection()
    client.connection_pool.release(connection)  # the next call takes this one
    read, lost = connection.read_response, []

    def loses_one(*words, **options):
        reply = read(*words, **options)
        if not lost:
            lost.append(reply)
            raise redis.TimeoutError("no reply came")
        return reply

    monkeypatch.setattr(connection, "read_response", loses_one)
    yield
    assert lost


def test_an_addition_whose_reply_was_lost_counts_once(server, client, monkeypatch):
    cart = Cart(client)
    with one_reply_lost(client, monkeypatch):
        assert cart.add("ada", "p-1", 10) == 10
    with one_reply_lost(client, monkeypatch):
        assert client.hincrby("naive", "p-1", 10) == 20
    with one_reply_lost(client, monkeypatch):
        assert Stock(client).add("p-1", 5) == 5


def test_a_guests_cart_moves_into_the_users(cart, client):
    cart.add("guest", "p-1", 2), cart.add("guest", "p-2")
    cart.add("ada", "p-1")
    assert cart.merge("guest", "ada") == {"p-1": 3, "p-2": 1}
    assert cart.items("guest") == {}
    assert cart.merge("guest", "ada") == {"p-1": 3, "p-2": 1}
    assert all(client.pttl(key) > 0 for key in client.keys())


class Crash(Exception):
    """The process ends here: a command was done, and the next is never sent."""


def crashing(client, step):
    """Return a client like this one that ends with its nth script or command."""
    twin, done = redis.Redis(connection_pool=client.connection_pool), []
    send = twin.execute_command

    def execute_command(*words, **options):
        reply = send(*words, **options)
        done.append(words[0])
        if len(done) == step:
            raise Crash
        return reply

    twin.execute_command = execute_command
    return twin


def steps_until_done(run) -> int:
    """Run with a crash after the first step, then the second ...; return how many there are."""
    for step in range(1, 20):
        try:
            run(step)
        except Crash:
            continue
        return step - 1
    raise AssertionError("it never ends")


def test_a_merge_that_broke_off_at_any_step_moves_each_line_once(client):
    def run(step):
        client.flushall()
        whole, broken = Cart(client), Cart(crashing(client, step))
        whole.add("guest", "p-1", 2), whole.add("ada", "p-1")
        try:
            broken.merge("guest", "ada")
        finally:
            whole.add("guest", "p-2")  # what comes later is not lost either
            assert whole.merge("guest", "ada") == {"p-1": 3, "p-2": 1}
            assert whole.items("guest") == {}

    assert steps_until_done(run) == 4  # aside, over, forgotten; a look at the result


def naive_merge(client, step):
    """The control: read the guest's lines, add each to the user's, delete the guest's."""
    client = crashing(client, step)
    for item, quantity in client.hgetall("naive:guest").items():
        client.hincrby("naive:ada", item, quantity)
    client.delete("naive:guest")


def test_a_plain_merge_that_broke_off_doubles_lines(client):
    def run(step):
        client.delete("naive:ada")
        client.hset("naive:guest", mapping={"p-1": 2, "p-2": 1})
        try:
            naive_merge(client, step)
        finally:
            naive_merge(client, 0)
            came.append(client.hgetall("naive:ada"))

    came = []
    assert steps_until_done(run) == 4
    assert {"p-1": "4", "p-2": "1"} in came and {"p-1": "4", "p-2": "2"} in came


def test_a_move_to_another_user_that_broke_off_ends_there(client, cart):
    cart.add("guest", "p-1")
    with pytest.raises(Crash):
        Cart(crashing(client, 1)).merge("guest", "bob")
    cart.add("guest", "p-2")
    assert cart.merge("guest", "ada") == {"p-2": 1} and cart.items("bob") == {"p-1": 1}


def test_merges_and_additions_at_once_keep_every_item(cart, together):
    turn, began = threading.Lock(), []

    def one():
        with turn:
            began.append(None)
            mine = len(began)
        if mine % 5 == 0:
            cart.merge("guest", "ada")
        else:
            cart.add("guest" if mine % 2 else "ada", "p-1")

    assert together(100, one) == [None] * 100
    assert cart.merge("guest", "ada") == {"p-1": 80}


# Stock


def test_the_last_items_are_sold_once(stock, client, together):
    stock.add("p-1", 5)
    orders = iter(range(20))
    turn = threading.Lock()

    def buy():
        with turn:
            order = f"order-{next(orders)}"
        return stock.take(order, {"p-1": 1})

    outcomes = together(20, buy)
    assert outcomes.count({}) == 5 and outcomes.count({"p-1": 0}) == 15
    assert stock.left(["p-1", "p-2"]) == {"p-1": 0, "p-2": 0}
    client.set("naive", 5)
    all_have_looked = threading.Barrier(20)

    def look_and_take():
        left = int(client.get("naive"))
        all_have_looked.wait()
        if left > 0:
            client.decr("naive")

    together(20, look_and_take)
    assert int(client.get("naive")) == -15  # the control sells what is not there


def test_an_order_is_taken_whole_or_not_at_all(stock):
    stock.add("p-1", 5), stock.add("p-2", 1)
    assert stock.take("a", {"p-1": 2, "p-2": 2, "p-3": 1}) == {"p-2": 1, "p-3": 0}
    assert stock.left(["p-1", "p-2"]) == {"p-1": 5, "p-2": 1}
    assert stock.take("b", {"p-1": 2, "p-2": 1}) == {}
    assert stock.left(["p-1", "p-2"]) == {"p-1": 3, "p-2": 0}


def test_an_order_has_one_outcome(stock, together):
    stock.add("p-1", 5, "delivery"), stock.add("p-1", 5, "delivery")
    assert together(20, stock.take, "a", {"p-1": 2}) == [{}] * 20
    assert stock.left(["p-1"]) == {"p-1": 3}
    assert stock.take("b", {"p-1": 4}) == {"p-1": 3}
    stock.add("p-1", 5)
    assert stock.take("b", {"p-1": 4}) == {"p-1": 3}
    for words in (("a", {"p-1": 3}), ("a", {"p-1": 2}, "bob")):
        with pytest.raises(ValueError, match="'a' is the name of another order"):
            stock.take(*words)


def test_an_order_is_given_back_once(stock, together):
    stock.add("p-1", 5), stock.take("a", {"p-1": 2}), stock.take("b", {"p-1": 9})
    assert sorted(together(10, stock.give_back, "a")) == [False] * 9 + [True]
    assert stock.give_back("b") is False and stock.give_back("c") is False
    assert stock.left(["p-1"]) == {"p-1": 5}
    with pytest.raises(ValueError, match="was given back"):
        stock.take("a", {"p-1": 2})


def test_a_checkout_takes_the_cart_or_leaves_it(cart, stock):
    stock.add("p-1", 2)
    cart.add("ada", "p-1", 3)
    assert cart.checkout("ada", "a", stock) == Order({"p-1": 3}, {"p-1": 2})
    assert cart.items("ada") == {"p-1": 3}
    stock.add("p-1", 2)
    assert cart.checkout("ada", "b", stock).is_taken and cart.items("ada") == {}
    cart.add("ada", "p-1")
    assert cart.checkout("ada", "b", stock) == Order({"p-1": 3}, {})  # it came again
    assert cart.items("ada") == {"p-1": 1} and stock.left(["p-1"]) == {"p-1": 1}
    assert not cart.checkout("bob", "c", stock).is_taken
    cart.add("eve", "p-1", 3)
    with pytest.raises(ValueError, match="'b' is the name of another order"):
        cart.checkout("eve", "b", stock)
    assert cart.items("eve") == {"p-1": 3} and stock.left(["p-1"]) == {"p-1": 1}


@pytest.mark.parametrize("in_stock", [9, 1])
def test_a_checkout_that_broke_off_at_any_step_can_be_repeated(client, in_stock):
    def run(step):
        client.flushall()
        cart, stock = Cart(client), Stock(client)
        stock.add("p-1", in_stock), cart.add("ada", "p-1", 2)
        twin = crashing(client, step)
        try:
            Cart(twin).checkout("ada", "a", Stock(twin))
        finally:
            is_taken = in_stock == 9
            assert cart.checkout("ada", "a", stock).is_taken is is_taken
            assert cart.items("ada") == ({} if is_taken else {"p-1": 2})
            assert stock.left(["p-1"]) == {"p-1": 7 if is_taken else 1}

    assert steps_until_done(run) == (2 if in_stock == 9 else 3)


def test_checkouts_and_additions_at_once_sell_and_keep_every_item(cart, stock, together):
    stock.add("p-1", 1000)
    turn, began = threading.Lock(), []

    def one():
        with turn:
            began.append(None)
            mine = len(began)
        if mine % 5 == 0:
            return sum(cart.checkout("ada", f"order-{mine}", stock).lines.values())
        cart.add("ada", "p-1")
        return 0

    sold = sum(together(100, one))
    kept = cart.items("ada").get("p-1", 0)
    assert sold + kept == 80 and stock.left(["p-1"]) == {"p-1": 1000 - sold}


def test_the_asyncio_twins_do_the_same(aclient, run_async):
    async def main():
        cart, stock = AsyncCart(aclient), AsyncStock(aclient)
        await stock.add("p-1", 5)
        await cart.add("guest", "p-1", 2)
        merged = await cart.merge("guest", "ada")
        order = await cart.checkout("ada", "a", stock)
        return merged, order, await stock.left(["p-1"]), await cart.items("ada")

    assert run_async(main()) == ({"p-1": 2}, Order({"p-1": 2}, {}), {"p-1": 3}, {})


ODD = ["}", "{x}", "a}b", "}x{", "ada:p", "a\r\nFLUSHALL", "*", "é", "e\u0301", " ", "\0", "r:1"]


def test_odd_names_are_kept_apart(cart, stock):
    for number, name in enumerate(ODD, start=1):
        cart.add(name, name, number), stock.add(name, number)
    for number, name in enumerate(ODD, start=1):
        assert cart.items(name) == {name: number} and stock.left([name]) == {name: number}
        assert cart.checkout(name, name, stock).is_taken
        assert cart.add(f"guest {name}", "p") == 1 and cart.merge(f"guest {name}", name) == {"p": 1}


BAD = {
    "user": (lambda c, s: c.add("", "p-1"), ValueError),
    "no user": (lambda c, s: c.add(None, "p-1"), TypeError),
    "item": (lambda c, s: c.add("ada", b"p-1"), TypeError),
    "long item": (lambda c, s: c.put("ada", "p" * 600, 1), ValueError),
    "surrogate": (lambda c, s: c.add("ada", "\ud800"), ValueError),
    "none": (lambda c, s: c.add("ada", "p-1", 0), ValueError),
    "less": (lambda c, s: c.add("ada", "p-1", -1), ValueError),
    "half": (lambda c, s: c.add("ada", "p-1", 2.5), TypeError),
    "true": (lambda c, s: c.add("ada", "p-1", True), TypeError),
    "text": (lambda c, s: c.add("ada", "p-1", "1"), TypeError),
    "too many": (lambda c, s: c.add("ada", "p-1", 10**6 + 1), ValueError),
    "put": (lambda c, s: c.put("ada", "p-1", -1), ValueError),
    "remove": (lambda c, s: c.remove("ada", "p-1", 0), ValueError),
    "request": (lambda c, s: c.add("ada", "p-1", 1, ""), ValueError),
    "itself": (lambda c, s: c.merge("ada", "ada"), ValueError),
    "order": (lambda c, s: c.checkout("ada", "", s), ValueError),
    "stock": (lambda c, s: c.checkout("ada", "a", None), TypeError),
    "no lines": (lambda c, s: s.take("a", {}), ValueError),
    "lines": (lambda c, s: s.take("a", ["p-1"]), TypeError),
    "line": (lambda c, s: s.take("a", {"p-1": 1, "p-2": 0}), ValueError),
    "items": (lambda c, s: s.left("p-1"), TypeError),
}


@pytest.mark.parametrize(("call", "error"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_and_nothing_is_written(cart, stock, client, call, error):
    with pytest.raises(error):
        call(cart, stock)
    assert client.dbsize() == 0


def test_a_bad_setting_is_refused(client, aclient):
    for make in (
        lambda: Cart(client, ttl=0),
        lambda: Cart(client, prefix="{"),
        lambda: Stock(client, keep=-1),
        lambda: Stock(client, name=""),
    ):
        with pytest.raises(ValueError):
            make()
    with pytest.raises(TypeError, match="connect"):
        Cart(aclient)
