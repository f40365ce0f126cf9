#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <stop_token>

#include "cli.h"
#if TTT_LINE_EDITOR
#include <editline/readline.h>
#endif

namespace ttt_cli {

bool is_terminal(std::FILE* file) { return isatty(fileno(file)) == 1; }

// ---------------------------------------------------------------- progress

ProgressBar::ProgressBar(std::string label) : label_(std::move(label)), enabled_(is_terminal(stderr)) {}

ProgressBar::~ProgressBar() {
  if (shown_ >= 0) std::fputs("\r\033[K", stderr);
}

void ProgressBar::update(std::size_t done, std::size_t total) {
  if (!enabled_ || total == 0) return;
  const int percent = static_cast<int>(100.0 * static_cast<double>(done) / static_cast<double>(total));
  if (percent == shown_) return;
  shown_ = percent;
  const std::string bar(static_cast<std::size_t>(percent) / 4, '#');
  std::fprintf(stderr, "\r%s [%-25s] %3d%%", label_.c_str(), bar.c_str(), percent);
}

// ---------------------------------------------------------------- Ctrl-C

namespace {

volatile std::sig_atomic_t interrupts = 0;
termios terminal_before{};
bool terminal_known = false;

void on_interrupt(int) {
  interrupts = interrupts + 1;
  if (interrupts < 2) return;
  if (terminal_known) tcsetattr(STDIN_FILENO, TCSANOW, &terminal_before);
  [[maybe_unused]] const auto written = write(STDERR_FILENO, "\n", 1);
  _exit(130);
}

}  // namespace

Interrupt::Interrupt(std::function<void()> cancel) {
  interrupts = 0;
  terminal_known = tcgetattr(STDIN_FILENO, &terminal_before) == 0;
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  watcher_ = std::jthread([cancel = std::move(cancel)](const std::stop_token& stop) {
    bool told = false;
    while (!stop.stop_requested()) {
      if (interrupts == 0) told = false;
      if (interrupts > 0 && !told) {
        told = true;
        cancel();
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  });
}

Interrupt::~Interrupt() {
  watcher_.request_stop();
  std::signal(SIGINT, SIG_DFL);
}

void Interrupt::reset() { interrupts = 0; }
bool Interrupt::pending() { return interrupts > 0; }

// ---------------------------------------------------------------- lines

bool LineReader::read(const std::string& prompt, std::string& line) {
#if TTT_LINE_EDITOR
  if (is_terminal(stdin) && is_terminal(stdout)) {
    char* text = ::readline(prompt.c_str());
    if (text == nullptr) return false;
    line = text;
    if (!line.empty()) ::add_history(text);
    std::free(text);
    return true;
  }
#endif
  if (is_terminal(stdin)) std::cout << prompt << std::flush;
  if (std::getline(std::cin, line)) return true;
  if (Interrupt::pending()) std::cin.clear(), std::clearerr(stdin);  // a signal is no end of input
  return false;
}

}  // namespace ttt_cli
