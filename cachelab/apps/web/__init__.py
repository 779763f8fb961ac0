"""The demo: a small shop with a feed, which shows what each of its pages costs.

`application.make_application` builds it, `serving.serving` runs it here; the extra is "web".
"""
