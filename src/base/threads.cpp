#include "ttt/base/threads.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace ttt::inline v2 {

namespace {

std::vector<int> allowed_processors() {
  std::vector<int> processors;
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(i, &allowed)) processors.push_back(i);
    }
    return processors;
  }
#endif
  for (unsigned i = 0; i < std::thread::hardware_concurrency(); ++i)
    processors.push_back(static_cast<int>(i));
  return processors;
}

// CPUs granted by one cgroup folder, or infinity.
double quota_of(const std::string& folder) {
  std::string max;
  double period = 0;
  if (std::ifstream file(folder + "/cpu.max"); file >> max >> period && max != "max" && period > 0) {
    return std::atof(max.c_str()) / period;
  }
  double quota = 0;
  if (std::ifstream file(folder + "/cpu.cfs_quota_us"); file >> quota && quota > 0) {
    if (std::ifstream time(folder + "/cpu.cfs_period_us"); time >> period && period > 0)
      return quota / period;
  }
  return HUGE_VAL;
}

double cgroup_quota() {
  double quota = std::min(quota_of("/sys/fs/cgroup"), quota_of("/sys/fs/cgroup/cpu"));
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(':', line.find(':') + 1);
    if (colon == std::string::npos) continue;
    const std::string controllers = line.substr(0, colon);
    std::string path = line.substr(colon + 1);
    if (!path.starts_with('/') || path.find("..") != std::string::npos)
      continue;  // mounted from outside: not ours to read
    const std::string root =
        controllers.find("cpu") != std::string::npos ? "/sys/fs/cgroup/cpu" : "/sys/fs/cgroup";
    for (; path.size() > 1; path.resize(path.rfind('/'))) quota = std::min(quota, quota_of(root + path));
  }
  return quota;
}

}  // namespace

int cores_of(const std::vector<int>& processors, const std::filesystem::path& topology) {
  std::set<std::string> cores;
  for (const int processor : processors) {
    const std::string name = "cpu" + std::to_string(processor);
    std::string siblings;
    std::ifstream file(topology / name / "topology" / "thread_siblings_list");
    cores.insert(std::getline(file, siblings) ? siblings : name);
  }
  return static_cast<int>(cores.size());
}

int usable_threads() {
  constexpr int enough_cores = 4;
  const std::vector<int> processors = allowed_processors();
  int threads = static_cast<int>(processors.size());
  if (const int cores = cores_of(processors, "/sys/devices/system/cpu"); cores >= enough_cores)
    threads = std::min(threads, cores);
  const double quota = std::ceil(cgroup_quota());
  if (quota < threads) threads = static_cast<int>(quota);
  return std::max(threads, 1);
}

}  // namespace ttt::inline v2
