"""NeMo-Gym's part of the config: environments, the models that judge, their settings.

A setting of a step belongs to a server of NeMo-Gym, named by its instance, or is one of `SHARED`.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

from nemoflow.config import yaml12
from nemoflow.config.messages import nearest
from nemoflow.errors import UserError

FILE = Path(__file__).parent / "environments.yaml"
# Settings that no server reads, and where NeMo-RL's branch super-v3 looks for them.
SHARED = {
    "invalid_tool_call_patterns": "env.nemo_gym.invalid_tool_call_patterns",
    "thinking_tags": "env.nemo_gym.thinking_tags",
    "effort_levels": "effort_levels",
    "chat_template_kwargs": (
        "policy.generation.vllm_cfg.http_server_serving_chat_kwargs.chat_template_kwargs"
    ),
}
AGENTS = ("swe_agents_train", "swe_agents_val")  # `swe_agents` in settings speaks of both
FIRST_PORT = 8000


@cache
def table() -> dict[str, Any]:
    """environments.yaml."""
    return yaml12.read(FILE)[0]


def environment(name: str) -> dict[str, Any]:
    """What is known of an environment: config, server, judge, env, gym.

    A name with a slash is a config file below NeMo-Gym's root, of which nothing else is known.

    Raises:
        UserError: there is none of that name.
    """
    known, stem = table()["environments"], Path(name).stem
    if "/" not in name and name not in known:
        raise UserError(
            f"environments: {nearest('environment', name, sorted(known))}; one that is not in the"
            " list is named by its config file's path below NeMo-Gym's root"
        )
    config = name if "/" in name else f"resources_servers/{name}/configs/{name}.yaml"
    told = {} if "/" in name else known[name]
    server = f"{stem}.resources_servers.{stem}"
    return {"config": config, "server": server, "judge": "judge_model_server", **told}


def section(told: dict[str, Any], train: str, validation: str | None) -> dict[str, Any]:
    """The keys of a step's environments and judges, dotted by NeMo-RL's names.

    `train` and `validation` are the files of prompts.
    """
    found = [environment(name) for name in told.get("environments", [])]
    gym: dict[str, Any] = {"config_paths": [table()["policy"], *(e["config"] for e in found)]}
    keys: dict[str, Any] = {"env.should_use_nemo_gym": True}
    for entry in found:
        gym |= entry.get("gym", {})
        keys |= {f"env.{key}": value for key, value in entry.get("env", {}).items()}
    for name, judge in sorted(told.get("judges", {}).items()):
        for asking in judge["used_by"]:
            entry = environment(asking)
            model = {"type": "responses_api_models", "name": name}
            put(gym, f"{entry['server']}.{entry['judge']}", model)
    for name, value in told.get("settings", {}).items():
        if name in SHARED:
            keys[SHARED[name]] = value
        else:
            settle(gym, name, value)
    for order, (name, judge) in enumerate(sorted(told.get("judges", {}).items())):
        put(gym, f"{name}.responses_api_models.vllm_model", judge_server(judge, order))
    if "swebench_openhands_training" in told.get("environments", []):
        add_agents(gym, dict(zip(AGENTS, (train, validation or train), strict=True)))
    return keys | {f"env.nemo_gym.{key}": value for key, value in gym.items()}


def settle(gym: dict[str, Any], name: str, value: dict[str, Any]) -> None:
    """Put what a step says of a server under the server's place.

    Raises:
        UserError: no environment of the recipes has such a server.
    """
    if name == "swe_agents":
        for agent in AGENTS:
            settle(gym, agent, value)
        return
    places = {environment(known)["server"] for known in table()["environments"]}
    servers = {place.partition(".")[0]: place for place in places} | table()["servers"]
    if name not in servers:
        known = [*servers, *SHARED, "swe_agents"]
        raise UserError(f"settings: {nearest('server', name, sorted(known))}")
    put(gym, servers[name], value)


def put(gym: dict[str, Any], place: str, value: dict[str, Any]) -> None:
    """Add keys at a dotted place."""
    for part in place.split("."):
        gym = gym.setdefault(part, {})
    gym.update(value)


def judge_server(judge: dict[str, Any], order: int) -> dict[str, Any]:
    """A server of vLLM replicas that NeMo-Gym starts on the nodes kept for environments.

    With `spinup_server` NeMo-Gym puts the address of what it started in the place of `base_url`
    (responses_api_models/vllm_model/app.py); the field is required all the same.
    """
    told = judge.get("arguments", {})
    arguments = {
        "tensor_parallel_size": judge["tensor"],
        "max_model_len": judge["max_sequence"],
        **told,
    }
    return {
        "entrypoint": "app.py",
        "base_url": f"http://127.0.0.1:{FIRST_PORT + order}/v1",
        "api_key": "dummy_key",
        "model": judge["hub"],
        "return_token_id_information": False,
        "uses_reasoning_parser": "reasoning_parser" in told,
        "spinup_server": True,
        "router_dp_size": judge["replicas"],
        "server_args": arguments,
        **({"server_env": judge["environment"]} if "environment" in judge else {}),
    }


def add_agents(gym: dict[str, Any], files: dict[str, str]) -> None:
    """Give the agents of software engineering their prompts and the images of their sandboxes.

    Raises:
        UserError: nothing says where the images lie.
    """
    for agent, file in files.items():
        place = table()["servers"][agent]
        put(gym, place, {"dataset_path": file})
        told = gym[agent]["responses_api_agents"]["swe_agents"]
        if "container_formatter" not in told:
            continue
        folder = os.environ.get("NEMOFLOW_SANDBOXES")
        if folder is None:
            raise UserError(
                "settings.swe_agents.container_formatter: name the folder of these images in"
                " NEMOFLOW_SANDBOXES, and that variable under environment in profiles/site.yaml"
            )
        names = told["container_formatter"]
        put(gym, place, {"container_formatter": [f"{folder}/{name}" for name in names]})
