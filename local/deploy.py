"""The synthesized template, deployed unmodified: what `cdk deploy` does, without its CLI, an account or Docker.

File assets go to the bootstrap bucket as zips; image assets are skipped, because the local Fargate runs the image's
command from this tree. The one parameter that is set is the name under which the Powertools layer's ARN is looked up.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any, Final

from local.cloud import ROOT, CloudError, Endpoints

LAYER_PARAMETER: Final = "/fleetcap/local/powertools-layer"
_LAYER: Final = "arn:aws:lambda:us-east-1:017000801446:layer:AWSLambdaPowertoolsPythonV3-python313-arm64:1"
_BOOTSTRAP_PARAMETER: Final = "/cdk-bootstrap/hnb659fds/version"
_STACK_S: Final = 120
_KEPT_ASSEMBLIES: Final = 8


class Synth:
    """`python app.py` in a process of its own, so that it runs beside other preparations.

    The same sources and settings give the same assembly, so one that was made before is taken as it is.
    """

    def __init__(self, config: Mapping[str, object], surroundings: Mapping[str, str]) -> None:
        context = json.loads((ROOT / "cdk.json").read_text())["context"]
        given = json.dumps({**context, "fleetcap": dict(config)}, sort_keys=True)
        self._output = ROOT / ".fleetcap" / "synth" / _fingerprint(given)
        self._partial = self._output.with_name(f"{self._output.name}.{os.getpid()}")
        self._process: subprocess.Popen[bytes] | None = None
        if not self._output.exists():
            _forget_old(self._output.parent)
            self._process = self._start(given, surroundings)
        else:
            os.utime(self._output)  # the assemblies used last are kept

    def _start(self, context: str, surroundings: Mapping[str, str]) -> subprocess.Popen[bytes]:
        environment = {
            **{name: value for name, value in surroundings.items() if not name.startswith(("AWS_", "CDK_"))},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{surroundings.get('PATH', os.defpath)}",
            "CDK_OUTDIR": str(self._partial),
            "CDK_CONTEXT_JSON": context,
            # The CDK's own look at the templates takes half of the time; here they are deployed at once, which tells.
            "CDK_VALIDATION": "false",
        }
        return subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def assembly(self) -> Path:
        """Wait for the cloud assembly. Raises CloudError with what the app said if it refuses."""
        if self._process is None:
            return self._output
        said, _ = self._process.communicate()
        if self._process.returncode:
            lines = said.decode().strip().splitlines() or ["no output"]
            raise CloudError(f"The stacks could not be synthesized: {lines[-1]}")
        try:
            self._partial.rename(self._output)
        except OSError:  # somebody else made the same meanwhile
            shutil.rmtree(self._partial)
        return self._output

    def cancel(self) -> None:
        """End the process if it still runs, and forget what it did not finish."""
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
        shutil.rmtree(self._partial, ignore_errors=True)


def _forget_old(folder: Path) -> None:
    """Keep the assemblies that were used last; what is still being made has a dot in its name."""
    made = [path for path in folder.glob("*") if "." not in path.name]
    for path in sorted(made, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT_ASSEMBLIES:]:
        shutil.rmtree(path, ignore_errors=True)


def _fingerprint(context: str) -> str:
    """One name for everything that goes into an assembly."""
    digest = hashlib.sha256(context.encode())
    folders = ("stacks", "lambdas", "worker_image")
    files = [ROOT / name for name in ("app.py", "cdk.json", ".dockerignore", "requirements.lock")]
    for path in files + [path for folder in folders for path in sorted((ROOT / folder).rglob("*"))]:
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(ROOT)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]


def deploy(assembly: Path, cloud: Endpoints) -> dict[str, str]:
    """Create every stack of the assembly in order; all their outputs by name."""
    account = cloud.client("sts").get_caller_identity()["Account"]
    bucket = _bootstrap(cloud, account)
    stacks = stacks_of(assembly)
    outputs: dict[str, str] = {}
    done: set[str] = set()
    while pending := [n for n in stacks if n not in done]:
        name = next(n for n in pending if not (set(stacks[n].get("dependencies", [])) & set(pending)))
        _upload_assets(cloud, assembly, assembly / f"{name}.assets.json", bucket, account)
        template = (assembly / stacks[name]["properties"]["templateFile"]).read_text()
        outputs |= _create(cloud, name, template, _uploaded(cloud, bucket, name, template))
        done.add(name)
    return outputs


def stacks_of(assembly: Path) -> dict[str, dict[str, Any]]:
    """The stacks of a cloud assembly by name, as its manifest tells of them."""
    artifacts = json.loads((assembly / "manifest.json").read_text())["artifacts"]
    return {name: artifact for name, artifact in artifacts.items() if artifact["type"] == "aws:cloudformation:stack"}


def publish_layer(cloud: Endpoints) -> None:
    """Make the layer's ARN known under a name of ours: the name that AWS has it under is not ours to write."""
    cloud.client("ssm").put_parameter(Name=LAYER_PARAMETER, Value=_LAYER, Type="String", Overwrite=True)


def layer_parameters(template: str) -> list[str]:
    """The template's parameters that take the name under which the layer's ARN is looked up."""
    declared = json.loads(template).get("Parameters", {})
    return [name for name, parameter in declared.items() if "powertools" in str(parameter.get("Default", ""))]


def _bootstrap(cloud: Endpoints, account: str) -> str:
    """The two things of `cdk bootstrap` that a deployment needs here: the version parameter and the asset bucket."""
    cloud.client("ssm").put_parameter(Name=_BOOTSTRAP_PARAMETER, Value="99", Type="String", Overwrite=True)
    publish_layer(cloud)
    bucket = f"cdk-hnb659fds-assets-{account}-{cloud.environment()['AWS_REGION']}"
    cloud.client("s3").create_bucket(Bucket=bucket)
    return bucket


def _upload_assets(cloud: Endpoints, assembly: Path, manifest: Path, bucket: str, account: str) -> None:
    s3 = cloud.client("s3")
    for asset in json.loads(manifest.read_text()).get("files", {}).values():
        source = assembly / asset["source"]["path"]
        body = _zipped(source) if asset["source"]["packaging"] == "zip" else source.read_bytes()
        for destination in asset["destinations"].values():
            key = destination["objectKey"].replace("${AWS::AccountId}", account)
            s3.put_object(Bucket=bucket, Key=key, Body=body)


def _zipped(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
                if path.suffix == ".py":
                    archive.writestr(cache_from_source(str(path.relative_to(folder))), _compiled(path))
    return buffer.getvalue()


def _compiled(source: Path) -> bytes:
    """A module's bytecode, good for this Python and whatever time its file bears.

    The emulator unpacks an asset anew for each process of a function, which would compile all of it anew.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "module.pyc"
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(source), str(made), source.name, doraise=True, invalidation_mode=mode)
        return made.read_bytes()


def _uploaded(cloud: Endpoints, bucket: str, name: str, template: str) -> str:
    """Where the template lies, as the CDK CLI has it: in the request itself there is room for 51,200 characters."""
    key = f"{name}.template.json"
    cloud.client("s3").put_object(Bucket=bucket, Key=key, Body=template.encode())
    return f"https://s3.amazonaws.com/{bucket}/{key}"


def _create(cloud: Endpoints, name: str, template: str, url: str) -> dict[str, str]:
    """Create one stack and wait for it; its outputs."""
    client = cloud.client("cloudformation")
    client.create_stack(
        StackName=name,
        TemplateURL=url,
        Parameters=[{"ParameterKey": p, "ParameterValue": LAYER_PARAMETER} for p in layer_parameters(template)],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    give_up_at = time.monotonic() + _STACK_S
    while time.monotonic() < give_up_at:
        stack: dict[str, Any] = client.describe_stacks(StackName=name)["Stacks"][0]
        if stack["StackStatus"] == "CREATE_COMPLETE":
            return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
        if not stack["StackStatus"].endswith("IN_PROGRESS"):
            break
        time.sleep(0.05)
    raise CloudError(f"Stack {name} was not created ({stack['StackStatus']}): {_why(client, name)}")


def _why(client: Any, name: str) -> str:  # noqa: ANN401 - boto3 makes its clients at run time
    """The first failure of a stack, in CloudFormation's own words."""
    events = client.describe_stack_events(StackName=name)["StackEvents"]
    failed = [e for e in events if e["ResourceStatus"].endswith("FAILED") and e.get("ResourceStatusReason")]
    last = min(failed, key=lambda e: e["Timestamp"], default=None)
    return f"{last['LogicalResourceId']}: {last['ResourceStatusReason']}" if last else "no event says why"
