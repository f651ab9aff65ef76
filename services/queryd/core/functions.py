"""Which SQL functions a query may call: every name of DuckDB 1.5.5, allowed or refused.

Allowed functions compute from their arguments alone. Refused are those that touch files,
network, settings, secrets, sequences or the catalogue, that run SQL given as text, that only
pass time, or that are the engine's own machinery. A name on neither list does not exist for
queries; a test holds both lists to `duckdb_functions()`, so that an upgrade cannot slip a
new function in.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

ALLOWED_FUNCTIONS = frozenset(
    """
    !__postfix !~~ !~~* % & && * ** + - ->> / // <-> << <=> <@ >> @ @> ^ ^@ | || ~ ~~ ~~* ~~~

    abs acos acosh add asin asinh atan atan2 atanh bin bit_count cbrt ceil ceiling cos cosh cot
    degrees divide even exp factorial fdiv floor fmod gamma gcd greatest_common_divisor hex isfinite
    isinf isnan lcm least_common_multiple lgamma ln log log10 log2 mod multiply nextafter pi pow
    power radians random round round_even roundbankers setseed sign signbit sin sinh sqrt subtract
    tan tanh to_base to_binary to_hex trunc unbin unhex xor greatest least hash nullif error
    equi_width_bins constant_or_null alias typeof pg_typeof switch

    ascii bar base64 bit_length char_length character_length chr concat concat_ws contains
    damerau_levenshtein decode editdist3 encode ends_with format format_bytes
    formatreadabledecimalsize formatreadablesize from_base64 from_binary from_hex hamming
    ilike_escape instr jaccard jaro_similarity jaro_winkler_similarity lcase left left_grapheme len
    length length_grapheme levenshtein like_escape lower lpad ltrim md5 md5_number md5_number_lower
    md5_number_upper mismatches nfc_normalize not_ilike_escape not_like_escape octet_length ord
    parse_dirname parse_dirpath parse_filename parse_formatted_bytes parse_path pg_size_pretty
    position prefix printf regexp_escape regexp_extract regexp_extract_all regexp_full_match
    regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table repeat replace reverse
    right right_grapheme rpad rtrim sha1 sha256 split split_part starts_with str_split
    str_split_regex string_split string_split_regex string_to_array strip_accents strlen strpos
    substr substring substring_grapheme suffix to_base64 translate trim ucase unicode upper
    url_decode url_encode icu_sort_key

    age ago century current_date current_localtime current_localtimestamp date_add date_diff
    date_part date_sub date_trunc datediff datepart datesub datetrunc day dayname dayofmonth
    dayofweek dayofyear days_in_month decade epoch epoch_ms epoch_ns epoch_us era get_current_time
    get_current_timestamp hour isodow isoyear julian last_day make_date make_time make_timestamp
    make_timestamp_ms make_timestamp_ns make_timestamptz microsecond millennium millisecond minute
    month monthname nanosecond normalized_interval now quarter second strftime strptime time_bucket
    timezone timezone_hour timezone_minute to_centuries to_days to_decades to_hours to_microseconds
    to_millennia to_milliseconds to_minutes to_months to_quarters to_seconds to_timestamp to_weeks
    to_years today transaction_timestamp try_strptime week weekday weekofyear year yearweek

    aggregate apply array_aggr array_aggregate array_append array_apply array_cat array_concat
    array_contains array_cosine_distance array_cosine_similarity array_cross_product array_distance
    array_distinct array_dot_product array_extract array_filter array_grade_up array_has
    array_has_all array_has_any array_indexof array_inner_product array_intersect array_length
    array_negative_dot_product array_negative_inner_product array_pop_back array_pop_front
    array_position array_prepend array_push_back array_push_front array_reduce array_resize
    array_reverse array_reverse_sort array_select array_slice array_sort array_to_json
    array_to_string array_to_string_comma_default array_transform array_unique array_value
    array_where array_zip element_at filter flatten generate_series generate_subscripts grade_up
    list_aggr list_aggregate list_any_value list_append list_apply list_approx_count_distinct
    list_avg list_bit_and list_bit_or list_bit_xor list_bool_and list_bool_or list_cat list_concat
    list_contains list_cosine_distance list_cosine_similarity list_count list_distance list_distinct
    list_dot_product list_element list_entropy list_extract list_filter list_first list_grade_up
    list_has list_has_all list_has_any list_histogram list_indexof list_inner_product list_intersect
    list_kurtosis list_kurtosis_pop list_last list_mad list_max list_median list_min list_mode
    list_negative_dot_product list_negative_inner_product list_pack list_position list_prepend
    list_product list_reduce list_resize list_reverse list_reverse_sort list_select list_sem
    list_skewness list_slice list_sort list_stddev_pop list_stddev_samp list_string_agg list_sum
    list_transform list_unique list_value list_var_pop list_var_samp list_where list_zip range
    reduce unnest unpivot_list

    cardinality map map_concat map_contains map_contains_entry map_contains_value map_entries
    map_extract map_extract_value map_from_entries map_keys map_values row struct_concat
    struct_contains struct_extract struct_extract_at struct_has struct_indexof struct_insert
    struct_keys struct_pack struct_position struct_update struct_values union_extract union_tag
    union_value enum_code enum_first enum_last enum_range enum_range_boundary variant_extract
    variant_typeof

    from_json from_json_strict json json_array json_array_length json_contains json_exists
    json_extract json_extract_path json_extract_path_text json_extract_string json_group_array
    json_group_object json_group_structure json_keys json_merge_patch json_object json_pretty
    json_quote json_structure json_transform json_transform_strict json_type json_valid json_value
    row_to_json to_json

    bit_position bitstring get_bit set_bit gen_random_uuid uuid uuid_extract_timestamp
    uuid_extract_version uuidv4 uuidv7 st_asbinary st_astext st_aswkb st_aswkt st_crs st_geomfromwkb
    st_intersects_extent st_setcrs

    current_catalog current_database current_role current_schema current_user session_user user
    version

    any_value approx_count_distinct approx_quantile approx_top_k arbitrary arg_max arg_max_null
    arg_max_nulls_last arg_min arg_min_null arg_min_nulls_last argmax argmin array_agg avg bit_and
    bit_or bit_xor bitstring_agg bool_and bool_or corr count count_if count_star countif covar_pop
    covar_samp entropy favg first first_value fsum geomean geometric_mean group_concat histogram
    histogram_exact kahan_sum kurtosis kurtosis_pop last last_value list listagg mad max max_by mean
    median min min_by mode product quantile quantile_cont quantile_disc regr_avgx regr_avgy
    regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy reservoir_quantile sem
    skewness stddev stddev_pop stddev_samp string_agg sum sum_no_overflow sumkahan var_pop var_samp
    variance wavg weighted_avg

    cume_dist dense_rank fill lag lead nth_value ntile percent_rank rank rank_dense row_number
    """.split()
)

# DuckDB makes one such function per language; `x COLLATE de` calls them.
ALLOWED_PREFIX = "icu_collate_"

ALLOWED_TABLE_FUNCTIONS = frozenset(
    """
    range generate_series unnest json_each json_tree repeat repeat_row icu_calendar_names
    pg_timezone_names test_all_types
    """.split()
)

_FILES = "reads or writes files"
_SETTINGS = "shows or changes settings of the engine"
_SECRETS = "shows secrets"
_CATALOG = "looks into the engine's own catalogue"
_TEXT = "runs or plans SQL given as text"
_ENGINE = "is the engine's own machinery"
_TIME = "only passes time"
_MEMORY = "reads objects of the process"

_REFUSED_FUNCTIONS: Mapping[str, str] = {
    _SETTINGS: "current_setting getvariable",
    _TEXT: "json_deserialize_sql json_serialize_plan json_serialize_sql",
    _TIME: "sleep_ms pg_sleep",
    _CATALOG: """
        col_description current_connection_id current_query current_query_id current_schemas
        current_transaction_id currval format_pg_type format_type get_block_size
        has_any_column_privilege has_column_privilege has_database_privilege
        has_foreign_data_wrapper_privilege has_function_privilege has_language_privilege
        has_schema_privilege has_sequence_privilege has_server_privilege has_table_privilege
        has_tablespace_privilege in_search_path inet_client_addr inet_client_port inet_server_addr
        inet_server_port map_to_pg_oid nextval obj_description pg_collation_is_visible
        pg_conf_load_time pg_conversion_is_visible pg_function_is_visible pg_get_constraintdef
        pg_get_expr pg_get_viewdef pg_has_role pg_is_other_temp_schema pg_my_temp_schema
        pg_opclass_is_visible pg_operator_is_visible pg_opfamily_is_visible
        pg_postmaster_start_time pg_table_is_visible pg_ts_config_is_visible pg_ts_dict_is_visible
        pg_ts_parser_is_visible pg_ts_template_is_visible pg_type_is_visible shobj_description
        txid_current
        """,
    _ENGINE: """
        __internal_compress_integral_ubigint __internal_compress_integral_uinteger
        __internal_compress_integral_usmallint __internal_compress_integral_utinyint
        __internal_compress_string_hugeint __internal_compress_string_ubigint
        __internal_compress_string_uhugeint __internal_compress_string_uinteger
        __internal_compress_string_usmallint __internal_compress_string_utinyint
        __internal_decompress_integral_bigint __internal_decompress_integral_hugeint
        __internal_decompress_integral_integer __internal_decompress_integral_smallint
        __internal_decompress_integral_ubigint __internal_decompress_integral_uhugeint
        __internal_decompress_integral_uinteger __internal_decompress_integral_usmallint
        __internal_decompress_string can_cast_implicitly cast_to_type combine create_sort_key
        finalize get_type is_histogram_other_bin make_type parse_duckdb_log_message remap_struct
        replace_type stats timetz_byte_comparable variant_bytes_to_variant variant_normalize
        variant_to_parquet_variant vector_type write_log
        """,
}

_REFUSED_TABLE_FUNCTIONS: Mapping[str, str] = {
    _FILES: """
        glob read_blob read_csv read_csv_auto read_duckdb read_json read_json_auto
        read_json_objects read_json_objects_auto read_ndjson read_ndjson_auto read_ndjson_objects
        read_parquet read_text parquet_scan parquet_bloom_probe parquet_file_metadata
        parquet_full_metadata parquet_kv_metadata parquet_metadata parquet_schema sniff_csv
        """,
    _SECRETS: "duckdb_secret_types duckdb_secrets which_secret",
    _SETTINGS: """
        checkpoint disable_logging disable_profiling duckdb_extensions duckdb_optimizers
        duckdb_profiling_settings duckdb_settings duckdb_variables enable_logging
        enable_profiling force_checkpoint pragma_user_agent
        """,
    _TEXT: "json_execute_serialized_sql query query_table histogram histogram_values",
    _MEMORY: "arrow_scan arrow_scan_dumb pandas_scan python_map_function",
    _CATALOG: """
        duckdb_approx_database_count duckdb_columns duckdb_connection_count duckdb_constraints
        duckdb_coordinate_systems duckdb_databases duckdb_dependencies
        duckdb_external_file_cache duckdb_functions duckdb_indexes duckdb_keywords
        duckdb_log_contexts duckdb_logs duckdb_logs_parsed duckdb_memory
        duckdb_prepared_statements duckdb_schemas duckdb_sequences duckdb_table_sample
        duckdb_tables duckdb_temporary_files duckdb_types duckdb_views pragma_collations
        pragma_database_size pragma_metadata_info pragma_platform pragma_show
        pragma_storage_info pragma_table_info pragma_version truncate_duckdb_logs
        """,
    _ENGINE: "seq_scan summary test_vector_types",
}


def _by_name(groups: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType({name: why for why, names in groups.items() for name in names.split()})


# Name to the reason it is refused, as a verb phrase for the message.
REFUSED_FUNCTIONS = _by_name(_REFUSED_FUNCTIONS)
REFUSED_TABLE_FUNCTIONS = _by_name(_REFUSED_TABLE_FUNCTIONS)


def is_allowed(name: str) -> bool:
    """Whether an expression may call this function (lower case)."""
    return name in ALLOWED_FUNCTIONS or name.startswith(ALLOWED_PREFIX)
