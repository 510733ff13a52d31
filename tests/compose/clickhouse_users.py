"""Reads compose/clickhouse/users.xml with ClickHouse's engine, as the server would, and prints who may
do what: one line `user<TAB>authentication<TAB>from where`, then each user's grants.

usage: clickhouse_users.py LIBCHDB FOLDER    FOLDER has users.d/walview.xml; it becomes the server's
"""

import ctypes
import os
import sys

library, folder = sys.argv[1:]
# Of the image's own users.xml, what matters here.
with open(os.path.join(folder, "users.xml"), "w") as file:
    file.write(
        "<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users><default>"
        "<password/><networks><ip>::/0</ip></networks><profile>default</profile>"
        "<quota>default</quota></default></users></clickhouse>"
    )
with open(os.path.join(folder, "config.xml"), "w") as file:
    file.write(f"<clickhouse><users_config>{folder}/users.xml</users_config></clickhouse>")

engine = ctypes.CDLL(library)
pointer, size, text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
engine.chdb_connect.restype = ctypes.POINTER(pointer)
engine.chdb_query_n.restype = pointer
engine.chdb_query_n.argtypes = [pointer, text, size, text, size]
engine.chdb_result_buffer.restype = pointer
engine.chdb_result_length.restype = size
engine.chdb_result_error.restype = text
for function in (engine.chdb_result_buffer, engine.chdb_result_length, engine.chdb_result_error):
    function.argtypes = [pointer]

arguments = [b"chdb", f"--config-file={folder}/config.xml".encode(), f"--path={folder}/data".encode()]
connection = engine.chdb_connect(len(arguments), (text * len(arguments))(*arguments))
if not connection:
    sys.exit("the engine does not take the configuration")


def query(sql):
    result = engine.chdb_query_n(connection[0], sql.encode(), len(sql), b"TSVRaw", 6)
    error = engine.chdb_result_error(result)
    if error:
        sys.exit(f"{sql}: {error.decode()}")
    length = engine.chdb_result_length(result)
    return ctypes.string_at(engine.chdb_result_buffer(result), length).decode() if length else ""


print(query("SELECT name, auth_type, arrayConcat(host_ip, host_names) FROM system.users ORDER BY name"))
for user in ("bi", "walview"):
    print(query(f"SHOW GRANTS FOR {user}"))
sys.stdout.flush()
# The engine's threads outlive the interpreter's orderly end.
os._exit(0)
