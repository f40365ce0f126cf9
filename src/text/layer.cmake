# JSON for tokenizer files and templates, PCRE2 for split patterns, utf8proc for Unicode normalisation and classes.
find_package(nlohmann_json 3.11 REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
get_target_property(text_type ttt_text TYPE)
if(NOT text_type STREQUAL "INTERFACE_LIBRARY")
  target_link_libraries(ttt_text PRIVATE nlohmann_json::nlohmann_json PkgConfig::PCRE2 PkgConfig::UTF8PROC)
endif()
