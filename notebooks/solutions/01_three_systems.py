"""Which of three systems gets a faster mean read."""

verdicts = {
    "A": True,  # 0.6 / 1.7: from 35 % on
    "B": False,  # the trip alone takes longer than the load
    "C": False,  # 2 / 4: from 50 % on; without the store it would be 33 %
}
