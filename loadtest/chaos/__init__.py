"""`make chaos`: what becomes of requests while their features' Redis fails in ten ways."""
