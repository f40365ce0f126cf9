// The command `ttt serve`.
#pragma once

namespace ttt_cli {

struct Program;
void add_serve(Program&);

}  // namespace ttt_cli
