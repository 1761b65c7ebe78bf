# A serial line does not tell the size of the terminal at its other end; `make vm-shell` does.
if [ "$(tty)" = /dev/ttyS0 ]; then
    for word in $(cat /proc/cmdline); do
        case $word in
        pyrun.columns=*) stty cols "${word#*=}" ;;
        pyrun.lines=*) stty rows "${word#*=}" ;;
        esac
    done
    unset word
fi
