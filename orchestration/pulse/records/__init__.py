"""Reads the pages beside the first one: lists and single records, from the store and the folders it names.

Looks and changes nothing. What a command left is read with bounds: it may be anything.
"""

from orchestration.pulse.records.calendar import calendar_view as calendar_view
from orchestration.pulse.records.cycle import cycle_detail as cycle_detail
from orchestration.pulse.records.intents import intents_view as intents_view
from orchestration.pulse.records.listing import cycle_page as cycle_page
from orchestration.pulse.records.parameters import baseline_view as baseline_view
from orchestration.pulse.records.parameters import escrow_view as escrow_view
from orchestration.pulse.records.promotions import promotions_view as promotions_view
from orchestration.pulse.records.tick import tick_detail as tick_detail
