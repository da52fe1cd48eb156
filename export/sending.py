"""What is sent to a served model; see `slotcon_client.sending`."""

from slotcon_client.sending import Sendable, ask, served_form

__all__ = ["Sendable", "ask", "served_form"]
