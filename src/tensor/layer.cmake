# xxHash for the fingerprints of weights and the checksums of the weight cache.
find_package(PkgConfig REQUIRED)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
target_link_libraries(ttt_tensor PRIVATE PkgConfig::XXHASH)
