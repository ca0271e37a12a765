"""A trained policy to the Hugging Face hub, with its model card, as one commit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from scdpo.errors import HubError, InputError
from scdpo.policies import HUB_SECONDS
from scdpo.training.card import CARD, read_card

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def find_policy(path: Path, policy: str | None) -> Path:
    """The folder of a policy: of a run, by its name; of a training; or a policy folder itself.

    Raises InputError where there is none.
    """
    if (path / "recipe.yaml").is_file():
        folders = {found.parents[1].name: found.parent for found in _configs(path)}
        names = ", ".join(folders) or "none yet"
        if policy is None:
            raise InputError(f"{path}: --policy is needed; trained policies of this run: {names}")
        if policy not in folders:
            raise InputError(
                f"{path}: no trained policy {policy!r}; trained policies of this run: {names}"
            )
        return folders[policy]
    if policy is not None:
        raise InputError(f"{path}: --policy names a policy of a run, but this is not a run folder")
    for folder in (path, path / "policy"):
        if (folder / "config.json").is_file():
            return folder
    raise InputError(f"{path}: no run, training or policy folder")


def push_policy(folder: Path, to: str, *, private: bool = False) -> str:
    """Upload a policy folder to the hub as `to` (owner/name); returns the address of the commit.

    The repository is made if it does not exist. The token is that of the environment (`HF_TOKEN`)
    or of `hf auth login`. Raises InputError for a malformed name, HubError without a token or
    network and where the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if not _NAME.fullmatch(to):
        raise InputError(f"--to {to}: expected a name on the hub such as owner/name")
    token = get_token()
    if token is None:
        raise HubError("no token for the Hugging Face hub: set HF_TOKEN, or run `hf auth login`")
    files = [file for file in sorted(folder.iterdir()) if _wanted(file)]
    contents: dict[str, str | bytes] = {file.name: str(file) for file in files}
    if (card := read_card(folder)) is not None:
        if card.data.get("model_name"):
            card.data["model_name"] = to.partition("/")[2]
        contents[CARD] = str(card).encode()
    api = HfApi(token=token)
    try:
        _claim(api, to, private)
        made = api.create_commit(
            repo_id=to,
            operations=[CommitOperationAdd(name, content) for name, content in contents.items()],
            commit_message="Upload a policy trained with scdpo",
        )
    except InputError:
        raise
    except Exception as error:  # whatever the network, the hub or its client raise
        raise HubError(f"{to}: not pushed: {_brief(error, token)}") from None
    return str(made.commit_url)


def _claim(api: HfApi, to: str, private: bool) -> None:
    """Make the repository unless it exists. The client itself would wait without end for a hub
    that does not answer, so that is found out first."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        known = api.model_info(to, timeout=HUB_SECONDS)
    except RepositoryNotFoundError:
        api.create_repo(to, private=private)
        return
    if private and not known.private:
        raise InputError(
            f"--private: {to} exists and is public; make it private on the hub, or choose another"
            " name"
        )


def _configs(run: Path) -> list[Path]:
    found = [run / "sft" / "policy" / "config.json", *run.glob("policies/*/policy/config.json")]
    return sorted(path for path in found if path.is_file())


def _wanted(file: Path) -> bool:
    return file.is_file() and not file.name.startswith(".")


def _brief(error: Exception, token: str) -> str:
    """An error as one line of at most 300 characters, which never shows the token."""
    causes = [error, *([error.__cause__] if error.__cause__ else [])]
    said = next((found for e in causes if (found := getattr(e, "server_message", None))), None)
    text = said or " ".join(str(error).split()) or type(error).__name__
    text = text.replace(token, "***")
    return text if len(text) <= 300 else f"{text[:299]}…"
