// What a change of files can break, by the build's own knowledge of its sources.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ttt/testing/build_graph.h"
#include "ttt/testing/networks.h"
#include "ttt/testing/selection.h"

namespace ttt::inline v2::testing {

class Change {
 public:
  // `networks`: all of the test set.
  Change(const BuildGraph&, std::vector<std::string> files,
         const std::vector<std::shared_ptr<const Network>>& networks);

  // Why the instance can break; empty: it can not. Parts that are modules of their own count where the whole
  // does: in the test of a network, and not in that of their owner.
  enum class Depth { itself, with_parts };
  std::string reason(const Network&, const ModuleInstance&, Depth = Depth::itself) const;
  // The tests of ctest that can.
  std::vector<SelectedCase> cases() const;
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  // A kind as the build sees it: its module, for one of a model's own with the library that brings it.
  using Part = std::string;
  static Part part(const Network&, const ModuleKind&);
  static Part part(const Network& network, const ModuleInstance& instance) {
    return part(network, instance.kind);
  }

  void classify(const std::string& file);
  void find_parts(const std::vector<std::shared_ptr<const Network>>& networks);
  std::string through(const std::set<int>& reached) const;
  std::string reason_of(const BuildGraph::Test&) const;
  std::optional<bool> network_breaks(const std::string& parameter) const;

  const BuildGraph& graph_;
  std::map<int, std::string> changed_;           // objects, and the file that changed
  std::set<std::string> test_files_, plain_;     // below tests/, not compiled; anything else not compiled
  std::string everything_;                       // the file that anything depends on
  std::map<Part, std::string> parts_;            // that can break, and why
  std::map<Part, std::string> with_parts_;       // the same where all that they are made of counts
  std::set<int> of_parts_;                       // objects that are accounted for by parts and families
  std::string common_;                           // why every network can break
  std::set<std::string> backends_;               // whose kernels changed: "cpu"
  std::map<std::string, std::string> families_;  // whose file changed
  std::map<std::string, bool> networks_;         // by the name as tests spell it: whether it can break
  std::map<const Network*, std::vector<ModuleInstance>> instances_;  // of the processor
  // What the objects of a test's cases use and run, by target and objects.
  mutable std::map<std::pair<std::string, std::set<int>>, std::set<int>> reached_;
  std::vector<std::string> notes_;
};

}  // namespace ttt::inline v2::testing
