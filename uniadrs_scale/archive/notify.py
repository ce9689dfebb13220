"""Telling others how a sweep ended. That nobody could be told is logged, and costs nothing else."""

from __future__ import annotations

import json
import logging
import subprocess
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests

from uniadrs_scale.redaction import HIDDEN, redact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uniadrs_scale.archive.config import Channel, Notify

LOG = logging.getLogger("uniadrs_scale.sweep")
WEBHOOK_SECONDS, COMMAND_SECONDS = 10, 60
"""How long a receiver may take: a sweep must not hang on it."""


def notify(channels: Notify, facts: Mapping[str, Any]) -> None:
    """Tell whoever wants to know, with ``facts`` as JSON."""
    channel = channels.on_complete if facts["complete"] else channels.on_failure
    for tell in (_post, _run):
        try:
            tell(channel, json.dumps(facts))
        except (OSError, subprocess.SubprocessError) as error:
            # The path of a webhook is a password in itself.
            reason = str(error).replace(urlsplit(channel.webhook or "").path or "\n", f"/{HIDDEN}")
            LOG.warning("nobody was told: %s", redact(reason), extra={"event": "untold"})


def _post(channel: Channel, text: str) -> None:
    if channel.webhook is not None:
        headers = {"Content-Type": "application/json"}
        answer = requests.post(channel.webhook, data=text, headers=headers, timeout=WEBHOOK_SECONDS)
        answer.raise_for_status()


def _run(channel: Channel, text: str) -> None:
    if channel.command:
        # A list of arguments, never a shell: nothing in a report can become a command.
        subprocess.run(  # noqa: S603 - the operator's own command
            channel.command, input=text, text=True, check=True, timeout=COMMAND_SECONDS
        )
