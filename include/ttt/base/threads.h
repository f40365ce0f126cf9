// How many threads a process should run.
#pragma once

#include <filesystem>
#include <vector>

namespace ttt::inline v2 {

// Of the processors that the process may use (affinity), as many as its cgroup's CPU quota grants, at
// least 1. Where several processors are threads of one core, one for each core as soon as there are four
// cores: those keep memory and matrix units busy by themselves, while of fewer the second threads still hide
// some of the waiting.
int usable_threads();

// Cores that the processors belong to. `topology` is /sys/devices/system/cpu or the like; a processor that it
// does not know is a core of its own.
int cores_of(const std::vector<int>& processors, const std::filesystem::path& topology);

}  // namespace ttt::inline v2
