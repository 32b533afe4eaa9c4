#!/usr/bin/env bash
# Ray Data writes a column without a value in one block with the type null, and others refuse the folder of Parquet that it makes.
#
# A function of `map_batches` returns NumPy columns, of which one has a text where something went wrong and None elsewhere. The files
# of blocks in which nothing went wrong then have a column of type null, the others one of text. Ray reads its folder again; pandas,
# DuckDB and `datasets` stop at the first text. DuckDB reads it by `union_by_name`. A function that returns a `pyarrow.Table` with types
# makes files that all of them read.
# Seen with ray 2.60.0, pyarrow 26.0.1, pandas 3.1.1, duckdb 2.0.1, datasets 5.2.0.
# Ends with 0 if that is still so, with 1 if not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'ray[data]==2.60.0' pyarrow==26.0.1 pandas==3.1.1 duckdb==2.0.1 \
    datasets==5.2.0
cd "$folder"
cat > write.py <<'PYTHON'
import numpy as np
import pyarrow as pa
import ray

FAILED = 3
ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)


def of_arrays(batch):
    errors = [("no sound" if clip == FAILED else None) for clip in batch["id"]]
    return {"clip": batch["id"], "error": np.array(errors, dtype=object)}


def of_types(batch):
    columns = of_arrays(batch)
    return pa.table({"clip": pa.array(columns["clip"], pa.int64()), "error": pa.array(columns["error"], pa.string())})


for name, function in (("arrays", of_arrays), ("types", of_types)):
    clips = ray.data.range(4, override_num_blocks=2).map_batches(function, batch_size=2)
    clips.write_parquet(name)
    print(f"{name}: ray reads {ray.data.read_parquet(name).count()} rows")
PYTHON
cat > read.py <<'PYTHON'
import sys
from pathlib import Path

import datasets
import duckdb
import pandas
import pyarrow.parquet

READERS = {
    "pandas": lambda name: len(pandas.read_parquet(name)),
    "datasets": lambda name: len(datasets.load_dataset("parquet", data_dir=name, split="train")),
    "duckdb": lambda name: len(duckdb.sql(f"select * from '{name}/*.parquet'").fetchall()),
    "duckdb, union_by_name": lambda name: len(
        duckdb.sql(f"select * from read_parquet('{name}/*.parquet', union_by_name = true)").fetchall()
    ),
}


def said_by(read, name):
    try:
        return f"{read(name)} rows"
    except Exception as error:
        return type(error).__name__


datasets.disable_progress_bars()
said = {}
for name in ("arrays", "types"):
    files = sorted(Path(name).glob("*.parquet"))
    kinds = [str(pyarrow.parquet.read_schema(file).field("error").type) for file in files]
    said[name] = {"kinds": kinds} | {reader: said_by(read, name) for reader, read in READERS.items()}
    print(f"{name}: {said[name]}")
reads = {reader for reader, words in said["arrays"].items() if words == "4 rows"}
as_seen = said["arrays"]["kinds"] == ["null", "string"] and reads == {"duckdb, union_by_name"}
as_seen &= said["types"]["kinds"] == ["string", "string"] and all(said["types"][reader] == "4 rows" for reader in READERS)
sys.exit(0 if as_seen else 1)
PYTHON
RAY_USAGE_STATS_ENABLED=0 venv/bin/python write.py 2> /dev/null
HF_HUB_OFFLINE=1 HF_HOME="$folder/cache" venv/bin/python read.py 2> /dev/null
