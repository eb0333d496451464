"""The policy file: one msgpack map of the pair, verified by checksum, fingerprint and replayed outputs.

    wire        canonical msgpack, token by token
    checksum    one SHA-256, on several cores
    rows        arrays as aligned rows
    document    the file as checked structure; what another language reads
    storage     bytes to disk and back, never half
    arrays      JAX arrays to rows and back
    configs     the config in a file, and migrations
    replay      the self-test: outputs that were recorded when the policy was saved
    inspection  what a file holds, for people
    policies    save, load, verify
    members     one policy out of the file of a population
    sets        policies of different configs in a folder

The format, MUST by MUST, is in docs/file-format.md. There is no pickle and no code in a file,
and a type of config is looked up among those registered, never imported.
"""

from policy_core.files.configs import config_from_bytes as config_from_bytes
from policy_core.files.configs import config_to_bytes as config_to_bytes
from policy_core.files.inspection import FileInfo as FileInfo
from policy_core.files.inspection import inspect as inspect
from policy_core.files.policies import from_bytes as from_bytes
from policy_core.files.policies import load as load
from policy_core.files.policies import load_extra as load_extra
from policy_core.files.policies import save as save
from policy_core.files.policies import to_bytes as to_bytes
from policy_core.files.policies import verify as verify
from policy_core.files.replay import Verification as Verification
from policy_core.files.sets import load_all as load_all
from policy_core.files.sets import save_all as save_all
