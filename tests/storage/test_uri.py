"""What is written down of a URI is known to be harmless; all else may be a key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vrtspike.config.config import Config
from vrtspike.config.loader import change, dump_config, load_config
from vrtspike.errors import ConfigError, DataFormatError
from vrtspike.storage.folder import Folder
from vrtspike.storage.uri import without_keys, without_options, without_secrets

SECRET = "hunter2"


@pytest.mark.parametrize(
    "option",
    [
        *(
            "sig",
            "sas",
            "auth",
            "pwd",
            "pass",
            "credential",
            "credentials",
            "bearer",
            "jwt",
            "code",
        ),
        *("X-Amz-Signature", "X-Amz-Credential", "X-Goog-Signature", "AWSAccessKeyId", "apikey"),
        *("access_key", "secret_key", "session_token", "client_secret", "sas_token", "KEY", "k"),
        *("%73ecret_key", "s%65cret", "se%63ret%5fkey", "Region", "REGION", "region2", "regio%6E"),
        *("user", "scheme", "endpoint_override", "tls_ca_file_path", "default_block_size"),
    ],
)
def test_only_options_that_are_known_are_written_down(option: str) -> None:
    values = [SECRET, f"a:{SECRET}@host", f"%61:{SECRET}", f"http://me:{SECRET}@host:9000"]
    if option in ("user", "scheme", "endpoint_override", "tls_ca_file_path"):
        values = [f"x?key={SECRET}", f"x;key={SECRET}", f"http://me:{SECRET}@host:9000"]
        values += [f"http%3A%2F%2Fme%3A{SECRET}%40host", f"https://host?sig={SECRET}"]
    for value in values:
        for where in (f"s3://bucket/x?{option}={value}", f"s3://b/x?region=x&{option}={value}"):
            assert SECRET not in without_keys(where)
            assert SECRET not in str(Folder.at(where))


@pytest.mark.parametrize(
    "where",
    [
        "s3://bucket/runs?region=us-east-1",
        "s3://bucket/runs?endpoint_override=127.0.0.1:9000&scheme=http&region=us-east-1",
        "s3://bucket/runs?endpoint_override=https%3A%2F%2Fstore.example.org%3A9000",
        "s3://bucket/a b/c?allow_bucket_creation=true",
        "gs://bucket/x?project_id=a-b&retry_limit_seconds=60",
        "hdfs://host:8020/x?user=me&replication=3",
        "memory://x",
        "simplecache::s3://bucket/x",
        "zip://a.zip::s3://bucket/x",
        "s3://bucket/12:30/x",
    ],
)
def test_harmless_places_stay_as_they_are(where: str) -> None:
    assert without_keys(where) == where
    assert without_secrets(f"at {where}, and [{where}]") == f"at {where}, and [{where}]"


@pytest.mark.parametrize(
    "where",
    [
        f"s3://me:{SECRET}@bucket/x",
        f"s3://me:a/{SECRET}@bucket/x",
        f"s3://me:a?{SECRET}@bucket/x",
        f"s3://me:a/b?{SECRET}@bucket/x",
        f"s3://me:{SECRET}?b@bucket/x",
        f"s3://me:a#{SECRET}@bucket/x",
        f"s3://{SECRET}@bucket/x",
        f"s3://me%3A{SECRET}@bucket/x",
        f"s3://bucket/x#{SECRET}",
        f"s3://bucket/x?region=x#sig={SECRET}",
        f"simplecache::s3://me:{SECRET}@bucket/x",
        f"zip://a.zip::s3://me:{SECRET}@bucket/x",
        f"https://host/x?X-Amz-Signature={SECRET}&region=x",
    ],
)
def test_user_password_and_what_follows_are_left_out(where: str) -> None:
    assert SECRET not in without_keys(where) and SECRET not in without_options(where)
    text = without_secrets(f"cannot read '{where}', or \"{where}\" (in {where}).")
    assert SECRET not in text and text.startswith("cannot read '") and text.endswith(").")


def test_no_setting_is_written_down_with_its_keys() -> None:
    where = f"s3://me:{SECRET}@bucket/x?sig={SECRET}&region=x"
    settings: dict[str, Any] = {
        name: where for name in ("run.root", "data.source", "data.shards")
    } | {"data.train_split": "train", "sweep": {"space": {"data.source": {"grid": [where, "x"]}}}}
    config = change(Config(), settings)
    for text in (dump_config(config), json.dumps(config.model_dump(mode="json"))):
        assert SECRET not in text and "s3://bucket/x?region=x" in text
    assert config.run.root == where, "what is used has them"


@pytest.mark.parametrize("name", ["train.init_weights", "loss.weights_dir"])
def test_what_is_read_from_this_machine_is_no_uri(name: str) -> None:
    with pytest.raises(ConfigError, match="a path on this machine is expected") as caught:
        load_config(None, [f"{name}=s3://me:{SECRET}@bucket/x"])
    assert SECRET not in str(caught.value)


def test_errors_hold_no_keys() -> None:
    where = f"s3://me:{SECRET}@bucket/x?sig={SECRET}"
    error = DataFormatError(f"no {where}", where=where, got=repr(where), expected=where, fix=where)
    assert SECRET not in str(error) and SECRET not in repr(vars(error))
    with pytest.raises(ConfigError) as caught:
        load_config(None, [f"run.rot={where}"])
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load_config(None, [f"train.steps={where}"])
    assert SECRET not in str(caught.value)
    assert DataFormatError("x", where=Path("a")).where == Path("a")
