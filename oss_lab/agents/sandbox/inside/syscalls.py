"""Numbers of the system calls that the worker may make, on x86_64 and on aarch64.

Every other call is refused. The groups ALLOWED are harmless whatever their arguments; `filter`
checks the arguments of RULED; IGNORED does nothing and reports success, for `shutil.copy`.
The numbers are those of the kernel's headers (asm/unistd_64.h and asm-generic/unistd.h).
"""

# name=number on x86_64,number on aarch64; "-" where the machine has no such call
ALLOWED = """
# read and write what is open
read=0,63 write=1,64 readv=19,65 writev=20,66 pread64=17,67 pwrite64=18,68 preadv=295,69
pwritev=296,70 preadv2=327,286 pwritev2=328,287 close=3,57 close_range=436,436 lseek=8,62
dup=32,23 dup2=33,- dup3=292,24 pipe=22,- pipe2=293,59 sendfile=40,71 copy_file_range=326,285
fsync=74,82 fdatasync=75,83 flock=73,32 fallocate=285,47 ftruncate=77,46 fadvise64=221,223
# files and folders; which ones is the sandbox's decision
open=2,- openat=257,56 openat2=437,437 creat=85,- stat=4,- fstat=5,80 lstat=6,-
newfstatat=262,79 statx=332,291 access=21,- faccessat=269,48 faccessat2=439,439 readlink=89,-
readlinkat=267,78 getdents=78,- getdents64=217,61 mkdir=83,- mkdirat=258,34 rmdir=84,-
unlink=87,- unlinkat=263,35 rename=82,- renameat=264,38 renameat2=316,276 link=86,-
linkat=265,37 symlink=88,- symlinkat=266,36 truncate=76,45 chdir=80,49 fchdir=81,50 getcwd=79,17
statfs=137,43 fstatfs=138,44 umask=95,166
# memory
mmap=9,222 mprotect=10,226 munmap=11,215 brk=12,214 mremap=25,216 madvise=28,233 msync=26,227
mincore=27,232 membarrier=324,283
# threads
futex=202,98 set_robust_list=273,99 rseq=334,293 set_tid_address=218,96
gettid=186,178 exit=60,93 exit_group=231,94 sched_yield=24,124 sched_getaffinity=204,123
sched_getparam=143,121 sched_getscheduler=145,120
sched_get_priority_max=146,125 sched_get_priority_min=147,126 arch_prctl=158,-
# time
nanosleep=35,101 clock_nanosleep=230,115 clock_gettime=228,113 clock_getres=229,114
gettimeofday=96,169 time=201,- times=100,153 getitimer=36,102 setitimer=38,103 alarm=37,-
# waiting
poll=7,- ppoll=271,73 select=23,- pselect6=270,72 epoll_create=213,- epoll_create1=291,20
epoll_ctl=233,21 epoll_wait=232,- epoll_pwait=281,22 epoll_pwait2=441,441 eventfd=284,-
eventfd2=290,19 wait4=61,260 waitid=247,95
# signals that arrive
rt_sigaction=13,134 rt_sigprocmask=14,135 rt_sigreturn=15,139 rt_sigpending=127,136
rt_sigtimedwait=128,137 rt_sigsuspend=130,133 sigaltstack=131,132 restart_syscall=219,128
pause=34,-
# questions about itself and the machine
getpid=39,172 getppid=110,173 getuid=102,174 geteuid=107,175 getgid=104,176 getegid=108,177
getgroups=115,158 getresuid=118,148 getresgid=120,150 getpgid=121,155 getpgrp=111,-
getsid=124,156 uname=63,160 sysinfo=99,179 getrusage=98,165 getrlimit=97,163 setrlimit=160,164
getcpu=309,168 getpriority=140,141 getrandom=318,278
# a connected pair of sockets
recvfrom=45,207 shutdown=48,210 getsockopt=55,209 getsockname=51,204 getpeername=52,205
"""
RULED = """
ioctl=16,29 clone=56,220 prctl=157,167 kill=62,129 tgkill=234,131 prlimit64=302,261
socketpair=53,199 sendto=44,206 fcntl=72,25 listxattr=194,11 llistxattr=195,12 flistxattr=196,13
"""
IGNORED = """
fchmod=91,52 fchmodat=268,53 fchmodat2=452,452 chmod=90,- utimensat=280,88 utime=132,-
utimes=235,- futimesat=261,-
"""

MACHINES = ("x86_64", "aarch64")


def read_numbers(table: str, machine: str) -> dict[str, int]:
    """The numbers of a table's calls on `machine`, by name.

    >>> read_numbers(IGNORED, "aarch64")["fchmod"]
    52
    """
    column = MACHINES.index(machine)
    numbers = {}
    for line in table.splitlines():
        for entry in () if line.startswith("#") else line.split():
            name, _, pair = entry.partition("=")
            number = pair.split(",")[column]
            if number != "-":
                numbers[name] = int(number)
    return numbers
