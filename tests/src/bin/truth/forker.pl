# The part of the workload for which a safe program is no good: processes that are forked without
# executing another program, and close_range(2). Arguments: folder, seed.
use strict;
use Socket;
use Fcntl;
use POSIX ();

my ($folder, $seed) = @ARGV;
srand $seed;
my ($run) = $folder =~ m{([^/]+)$};
# System calls that have no function here: the last three have these numbers on every machine.
my ($ACCEPT, $SETRLIMIT) = (POSIX::uname())[4] eq 'x86_64' ? (43, 160) : (202, 164);
my ($PIDFD_OPEN, $CLOSE_RANGE, $PIDFD_GETFD) = (434, 436, 438);
my ($count, $serial) = (0, 0);

# Operations, reported as the other workers do; the pipe does not block.
sub done {
    $count += @_ ? $_[0] : 1;
    return if $count < 64;
    my $written = syswrite STDOUT, pack('Q<', $count);
    $count = 0 if $written;
    POSIX::_exit(0) if !defined $written && $!{EPIPE};
}

# A child ends by _exit, so that the kernel closes what it has; with an alarm, so that it ends.
sub child {
    my ($work) = @_;
    my $pid = fork;
    return $pid if $pid;
    alarm 10;
    $count = 0;
    $work->();
    syswrite STDOUT, pack('Q<', $count + 1);
    POSIX::_exit(0);
}

sub name { pack_sockaddr_un("\0$run/fork/$$/" . $serial++) }

sub stream {
    socket my $socket, AF_UNIX, SOCK_STREAM, 0 or return;
    fcntl $socket, F_SETFL, O_NONBLOCK;
    done();
    return $socket;
}

# Some are killed, all are waited for.
sub gather {
    for my $pid (@_) {
        kill 'KILL', $pid if int rand 3 == 0;
        waitpid $pid, 0;
        done(2);
    }
}

# Children accept at one listener; connections they do not take die with it.
sub shared_listener {
    my $name = name();
    my $listener = stream() or return;
    bind $listener, $name;
    listen $listener, 1 + int rand 6;
    my @clients;
    for (1 .. 1 + int rand 6) {
        my $client = stream() or last;
        connect $client, $name;
        push @clients, $client;
        done();
    }
    my @children = map {
        child(sub {
            close $listener if int rand 4 == 0;
            my @accepted;
            for (1 .. 3) {
                my $accepted;
                push @accepted, $accepted if accept $accepted, $listener;
                done();
            }
            close shift @clients if int rand 2;
            shutdown $accepted[0], 2 if @accepted;
        })
    } 1 .. 3;
    close $listener if int rand 2;
    splice @clients, 0, 1 if int rand 2;
    done(2);
    gather(@children);
}

# Both ends in several processes, let go in any order.
sub shared_pair {
    my $type = int rand 2 ? SOCK_STREAM : SOCK_DGRAM;
    socketpair my $one, my $other, AF_UNIX, $type, 0 or return;
    done();
    my @children = map {
        child(sub {
            close $one if int rand 2;
            shutdown $other, int rand 3 if int rand 3 == 0;
            my $grandchild = child(sub { send $other, 'x', 0x4040 });
            close $other;
            waitpid $grandchild, 0 if int rand 2;
            done(2);
        })
    } 1 .. 2;
    close $one;
    close $other if int rand 2;
    done(2);
    gather(@children);
}

# A child closes everything at once: for itself, or after it has unshared its table.
sub ranges {
    my @kept = map { stream() } 1 .. 4;
    my $flags = (0, 2, 4)[int rand 3];
    my $pid = child(sub {
        my @own = map { stream() } 1 .. 4;
        syscall $CLOSE_RANGE, 3, 0xffff_ffff, $flags;
        done();
    });
    splice @kept, 0, 2;
    syscall $CLOSE_RANGE, fileno $kept[0], fileno $kept[0], 0;
    done(3);
    gather($pid);
}

# A child executes a program: what stays open and what is closed is left to chance.
sub program {
    $^F = int rand 2 ? 255 : 2;
    my @kept = map { stream() } 1 .. 3;
    $^F = 2;
    my $pid = child(sub {
        replace(@kept);
        exec 'true';
    });
    done();
    gather($pid);
}

# One descriptor put over another.
sub replace {
    my ($from, $to) = @_;
    POSIX::dup2(fileno $from, fileno $to);
    done();
}

# A connection that accept takes and cannot return, since its address cannot be written: it is lost.
sub lost_in_accept {
    my $name = name();
    my $listener = stream() or return;
    bind $listener, $name;
    listen $listener, 4;
    my @clients = map { my $client = stream(); connect $client, $name; $client } 1 .. 3;
    syscall $ACCEPT, fileno $listener, 1, 1;
    my $accepted;
    accept $accepted, $listener;
    done(8);
}

# A process has no room for one more descriptor: what was made for it goes again.
sub no_room {
    my $pid = child(sub {
        my $name = name();
        my $listener = stream();
        bind $listener, $name;
        listen $listener, 4;
        my $client = stream();
        connect $client, $name;
        syscall $SETRLIMIT, 7, pack 'QQ', (fileno $client) + 2, 4096;
        for (1 .. 4) {
            stream();
            socketpair my $one, my $other, AF_UNIX, SOCK_STREAM, 0;
            my $accepted;
            accept $accepted, $listener;
            done(3);
        }
    });
    gather($pid);
}

# A descriptor is taken out of another process, which may end meanwhile.
sub taken {
    my $socket = stream() or return;
    socketpair my $tell, my $told, AF_UNIX, SOCK_STREAM, 0 or return;
    my $pid = child(sub {
        my $own = stream();
        syswrite $tell, pack 'L', fileno $own;
        sysread $tell, my $end, 1 if int rand 2;
    });
    close $tell;
    sysread $told, my $number, 4;
    my $pidfd = syscall $PIDFD_OPEN, $pid, 0;
    my $fd = syscall $PIDFD_GETFD, $pidfd, unpack('L', $number || "\0\0\0\0"), 0;
    close $told;
    done(4);
    gather($pid);
    POSIX::close($_) for grep { $_ > 2 } $fd, $pidfd;
}

# prctl(PR_SET_PDEATHSIG, SIGKILL) is lost in a fork: the run's guard ends what is left.
while (1) {
    my @all = (
        \&shared_listener, \&shared_pair, \&ranges, \&program, \&lost_in_accept, \&no_room, \&taken
    );
    $all[int rand @all]->();
}
