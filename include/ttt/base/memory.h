// What the system is told about memory.
#pragma once

#include <cstddef>

namespace ttt::inline v2 {

constexpr std::size_t huge_page = std::size_t{2} << 20;  // bytes

// Asks for huge pages in [address, address + bytes), whose beginning is the beginning of a page: streams out
// of them are about a tenth faster. Where the system or the file has none, the hint has no effect.
void want_huge_pages(void* address, std::size_t bytes) noexcept;

}  // namespace ttt::inline v2
